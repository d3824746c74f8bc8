"""Drives the study of changes in mid-run: rows to JSONL, resumable by session; a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.table import Table

from mier.checkpoint import Checkpoint
from mier_envs.families import Family, Task
from mier_trainer.change_study import Noticing, change_rows
from mier_trainer.ood_trials import fresh_tasks
from mier_trainer.output import show
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import append_jsonl, provenance, read_jsonl

_SEED = 700


def run_change_study(
    checkpoint: Checkpoint,
    family: Family,
    results: Path,
    sessions: int,
    calm: int,
    changed: int,
    *,
    as_json: bool = False,
) -> None:
    """Append to `results` what it does not hold yet for this checkpoint, and print how changes were noticed."""
    key = {"checkpoint": checkpoint.name, "checkpoint_hash": checkpoint.hash}
    rows = read_jsonl(results) if results.exists() else []
    mine = [row for row in rows if row["checkpoint_hash"] == checkpoint.hash]
    done = {row["seed"] for row in mine}
    with progress_bar(f"{checkpoint.name} change", sessions, 0) as advance:
        for number, (before, after) in enumerate(_pairs(family, sessions)):
            seed = _SEED + number
            if seed not in done:
                played = change_rows(checkpoint, family, before, after, seed=seed, calm=calm, changed=changed)
                fresh = [key | row | provenance(seed) for row in played]
                append_jsonl(results, *fresh)
                mine += fresh
            advance(1, f"{before.name} to {after.name}")
    found = Noticing.of(mine, checkpoint.spec.horizon_steps)
    table = Table(*(name.replace("_", " ") for name in Noticing.__dataclass_fields__))
    table.add_row(*(f"{value:g}" for value in vars(found).values()))
    show([vars(found)], table, as_json)


def _pairs(family: Family, count: int) -> list[tuple[Task, Task]]:
    """A task of the training distribution, and what it changes to: every other time one beyond the distribution."""
    rng = np.random.default_rng(_SEED)
    inside = fresh_tasks(family, _SEED, 2 * count)
    beyond = family.ood_tasks or family.test_tasks
    chosen: list[tuple[Task, Task]] = []
    for number in range(count):
        before = inside[number]
        others = [task for task in (beyond if number % 2 else inside[count:]) if task != before]
        chosen.append((before, others[rng.integers(len(others))]))
    return chosen
