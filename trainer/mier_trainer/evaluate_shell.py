"""Drives evaluations: rows to JSONL, resumable by (task, seed); a table of gains with intervals."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from mier.checkpoint import Checkpoint
from mier.config import FineTuneConfig
from mier.intervals import mean_interval
from mier_envs.families import Family
from mier_trainer.evaluate import evaluate_task
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import append_jsonl, provenance, read_jsonl

Arm = Literal["ours", "own-data", "plain"]


def arm_config(base: FineTuneConfig, arm: Arm) -> FineTuneConfig:
    """'own-data': the paper's ablation without cross-task relabelling; 'plain': the paper's fine-tuning, without the
    warm start and without the critic-only phase."""
    if arm == "own-data":
        return replace(base, cross_task=False)
    return replace(base, warm_start=False, critic_only_updates=0) if arm == "plain" else base


def run_evaluation(
    checkpoint: Checkpoint,
    family: Family,
    results: Path | None,
    *,
    seeds: tuple[int, ...],
    episodes: int,
    rounds: int,
    tasks: tuple[int, ...],
    arm: Arm,
    curve_every: int,
    updates: int | None,
) -> None:
    """Evaluate what is not in `results` yet, append it there, and print the summary."""
    config = arm_config(checkpoint.agent.configuration.finetune, arm)
    config = replace(config, updates=updates) if updates is not None else config
    rows = read_jsonl(results) if results and results.exists() else []
    key = {"arm_name": arm, "checkpoint": checkpoint.name, "checkpoint_hash": checkpoint.hash, "rounds": rounds}
    key["updates_total"] = config.updates
    done = {(r["task"], r["seed"]) for r in rows if all(r.get(k) == v for k, v in key.items())}
    chosen = [family.test_tasks[i] for i in tasks] if tasks else list(family.test_tasks)
    todo = [(task, seed) for task in chosen for seed in seeds if (task.name, seed) not in done]
    with progress_bar(f"{checkpoint.name} {arm}", len(todo) * rounds * config.updates, 0) as advance:
        for task, seed in todo:
            note = f"{task.name} seed {seed}"
            fresh = [
                key | row | {k: v for k, v in provenance(seed).items() if k != "seed"}
                for row in evaluate_task(
                    checkpoint,
                    family,
                    task,
                    config,
                    seed=seed,
                    episodes=episodes,
                    rounds=rounds,
                    curve_every=curve_every,
                    on_update=lambda n, note=note: advance(n, note),  # type: ignore[misc]
                )
            ]
            rows += fresh
            if results:
                append_jsonl(results, *fresh)
    wanted = {task.name for task in chosen}
    mine = [r for r in rows if r["task"] in wanted and all(r.get(k) == v for k, v in key.items())]
    found = summary(mine, oracles(Path("docs/results/oracle.jsonl"), family.name))
    if results:
        described = {**key, "seeds": list(seeds), "rows": found, **provenance(seeds[0])}
        results.with_suffix(".summary.json").write_text(json.dumps(described, indent=1) + "\n")
    Console().print(summary_table(found))


def oracles(path: Path, family: str) -> dict[str, float]:
    """Mean oracle return by task; empty where none was recorded."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in read_jsonl(path) if path.exists() else []:
        if row["family"] == family:
            found[row["task"]].append(row["return_mean"])
    return {task: float(np.mean(values)) for task, values in found.items()}


def summary(rows: list[dict[str, Any]], oracle: dict[str, float]) -> list[dict[str, Any]]:
    """Per task: mean returns, normalised gain, and the paired difference of fine-tuned over context-adapted.

    A difference is paired: arms share a seed's real trajectories, and their episodes share initial states. One
    sample is a seed's mean over episodes, since episodes of one fine-tune are not independent of each other; the 95%
    interval is over seeds. gain = (arm - unadapted) / (oracle - unadapted).
    """
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task and row["arm"] != "curve"]
        last = max(row["round"] for row in mine)
        arms: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)
        for row in mine:
            if row["arm"] != "finetuned" or row["round"] == last:
                arms[row["arm"]][row["seed"], row["episode"]] = row["return"]
        means = {arm: float(np.mean(list(values.values()))) for arm, values in arms.items()}
        paired = {
            against: mean_interval(_seed_differences(arms["finetuned"], arms[against]))
            for against in ("unadapted", "context_adapted")
        }
        reference = oracle.get(task)
        gains = {
            f"gain_{arm}": (means[arm] - means["unadapted"]) / (reference - means["unadapted"])
            for arm in ("context_adapted", "finetuned")
            if reference is not None
        }
        found.append(
            {"task": task, **means, "oracle": reference, **gains, "paired": paired}
            | {"seeds": len({seed for seed, _ in arms["finetuned"]}), "episodes": len(arms["finetuned"])}
        )
    return found


def _seed_differences(arm: dict[tuple[int, int], float], against: dict[tuple[int, int], float]) -> list[float]:
    seeds = dict.fromkeys(seed for seed, _ in arm)
    return [float(np.mean([arm[k] - against[k] for k in arm if k[0] == seed])) for seed in seeds]


def summary_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        *("task", "unadapted", "context", "fine-tuned", "oracle", "gain context", "gain fine-tuned"),
        *("fine-tuned - context (95%)", "seeds x episodes"),
    )
    for row in rows:
        paired = row["paired"]["context_adapted"]
        gains = [f"{row[k]:.2f}" if k in row else "-" for k in ("gain_context_adapted", "gain_finetuned")]
        returns = [f"{row[k]:.1f}" for k in ("unadapted", "context_adapted", "finetuned")]
        reference = "-" if row["oracle"] is None else f"{row['oracle']:.1f}"
        difference = f"{paired.mean:.1f} [{paired.low:.1f}, {paired.high:.1f}]"
        table.add_row(
            row["task"], *returns, reference, *gains, difference, f"{row['seeds']} x {row['episodes'] // row['seeds']}"
        )
    return table
