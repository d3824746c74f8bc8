"""Drives the study of the out-of-distribution percentile: rows to JSONL, once a checkpoint; a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mier.checkpoint import Checkpoint
from mier_envs.families import Family
from mier_trainer.ood_study import Detection
from mier_trainer.ood_trials import fresh_tasks, ood_trials
from mier_trainer.output import rates_table, show
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import append_jsonl, provenance, read_jsonl

_SEED = 500
"""Of the study's tasks and episodes; those of training and calibration are small numbers."""


def run_ood_study(
    checkpoint: Checkpoint, family: Family, results: Path, inside: int, each: int, *, as_json: bool = False
) -> None:
    """Append to `results` the rows of this checkpoint, if they are not there; print the rates.

    Args:
        inside: fresh tasks of the training distribution.
        each: sessions on each of the family's tasks beyond it.

    Raises:
        ValueError: the checkpoint has no reference, or the family names no task beyond its training distribution.
    """
    if checkpoint.calibration.ood is None:
        raise ValueError(f"checkpoint '{checkpoint.name}' has no reference; mier-train calibrate gives it one")
    if not family.ood_tasks:
        raise ValueError(f"family '{family.name}' names no ood_tasks: add some to it")
    rows = read_jsonl(results) if results.exists() else []
    mine = [row for row in rows if row["checkpoint_hash"] == checkpoint.hash]
    if not mine:
        mine = list(_rows(checkpoint, family, inside, each))
        append_jsonl(results, *mine)
    found = _rates(mine)
    show(found, rates_table(found), as_json)


def _rows(checkpoint: Checkpoint, family: Family, inside: int, each: int) -> Iterator[dict[str, Any]]:
    reference = checkpoint.calibration.ood
    assert reference is not None
    key = {"checkpoint": checkpoint.name, "checkpoint_hash": checkpoint.hash}
    beyond = [task for task in family.ood_tasks for _ in range(each)]
    groups = ((False, fresh_tasks(family, _SEED, inside)), (True, beyond))
    with progress_bar(f"{checkpoint.name} ood", inside + len(beyond), 0) as advance:
        for outside, tasks in groups:
            for trial in ood_trials(checkpoint, family, tasks, _SEED + outside):
                numbers = {"ood_score": trial.found.ood_score, "nll_after": trial.found.nll_after}
                yield (
                    key
                    | {"task": trial.task.name, "outside": outside}
                    | {name: round(value, 4) for name, value in numbers.items()}
                    | {"percentile": round(reference.percentile(trial.found), 2)}
                    | provenance(trial.seed)
                )
                advance(1, trial.task.name)


def _rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inside = [row for row in rows if not row["outside"]]
    beyond = [row for row in rows if row["outside"]]
    return [
        {"beyond": task, **vars(Detection.of([*inside, *(row for row in beyond if task in ("all", row["task"]))]))}
        for task in [*dict.fromkeys(row["task"] for row in beyond), "all"]
    ]
