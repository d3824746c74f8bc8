"""How strange tasks look after two trajectories: within the training distribution, and beyond it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from mier.adaptation import Adaptation
from mier.checkpoint import Checkpoint
from mier.ood import OodReference
from mier.session import Session
from mier_envs.families import Family, Task
from mier_trainer.evaluate import two_trajectories


@dataclass(frozen=True)
class OodTrial:
    """One task, met by a fresh session."""

    task: Task
    seed: int
    found: Adaptation


def ood_trials(checkpoint: Checkpoint, family: Family, tasks: Iterable[Task], seed: int) -> Iterator[OodTrial]:
    """Two exploring trajectories of each task, an adaptation after each; the tasks have seeds of their own."""
    for number, task in enumerate(tasks):
        own = 10_000 * (seed + 1) + number
        rng, generator = np.random.default_rng([own, 3]), torch.Generator().manual_seed(own)
        found, _ = two_trajectories(Session(checkpoint, own), family, task, rng, generator)
        yield OodTrial(task, own, found)


def fresh_tasks(family: Family, seed: int, count: int) -> list[Task]:
    """So many tasks of the training distribution; where it is a finite set, each of them equally often."""
    drawn: list[Task] = []
    while len(drawn) < count:
        drawn += family.train_tasks(seed)
        seed += 1
    return drawn[:count]


def reference(trials: Iterable[OodTrial]) -> OodReference:
    """Of tasks of the training distribution."""
    found = [trial.found for trial in trials]
    return OodReference(
        tuple(sorted(round(f.ood_score, 4) for f in found)), tuple(sorted(round(f.nll_after, 4) for f in found))
    )
