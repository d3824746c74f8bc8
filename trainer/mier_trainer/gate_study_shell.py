"""Drives the study of the gate: rows to JSONL, resumable by (task, seed); a table of how often it is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mier.checkpoint import Checkpoint
from mier_envs.families import Family, Task
from mier_trainer.gate_study import Rates
from mier_trainer.gate_trials import gate_trials
from mier_trainer.output import rates_table, show
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import append_jsonl, provenance, read_jsonl


def run_gate_study(
    checkpoint: Checkpoint,
    family: Family,
    results: Path,
    tasks: list[Task],
    seeds: tuple[int, ...],
    episodes: int,
    *,
    as_json: bool = False,
) -> None:
    """Append to `results` what it does not hold yet for this checkpoint, and print the rates.

    Raises:
        ValueError: the checkpoint was never calibrated.
    """
    if (thresholds := checkpoint.calibration.gate) is None:
        raise ValueError(f"checkpoint '{checkpoint.name}' has no gate; mier-train calibrate gives it one")
    key = {"checkpoint": checkpoint.name, "checkpoint_hash": checkpoint.hash}
    rows = read_jsonl(results) if results.exists() else []
    mine = [row for row in rows if row["checkpoint_hash"] == checkpoint.hash]
    done = {(row["task"], row["seed"]) for row in mine}
    todo = [(task, seed) for task in tasks for seed in seeds if (task.name, seed) not in done]
    with progress_bar(f"{checkpoint.name} gate", len(todo), 0) as advance:
        for task, seed in todo:
            trials = gate_trials(checkpoint, family, task, seed=seed, episodes=episodes, broken=True)
            fresh = [
                key | trial.to_json() | {"verdict": trial.comparison.verdict(thresholds).value} | provenance(seed)
                for trial in trials
            ]
            append_jsonl(results, *fresh)
            mine += fresh
            advance(1, f"{task.name} seed {seed}")
    found = _rates(mine)
    show(found, rates_table(found), as_json)


def _rates(rows: list[dict[str, object]]) -> list[dict[str, Any]]:
    return [
        {"task": task, **vars(Rates.of([row for row in rows if task in ("all", row["task"])]))}
        for task in [*dict.fromkeys(str(row["task"]) for row in rows), "all"]
    ]
