"""Which trainer a named run gets, and what all of them can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from mier_envs.families import Task
from mier_trainer.baselines.pearl import PearlTrainer
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.runs import PearlRun, Run


class Trainer(Protocol):
    """A run in progress: a function of (run, seed, epochs done)."""

    epochs_done: int

    @property
    def tasks(self) -> list[Task]:
        """The training tasks."""
        ...

    @property
    def environment_steps(self) -> int:
        """Taken so far."""
        ...

    def epoch(self, on_step: Callable[[int], None]) -> dict[str, float]:
        """Collect and train for one epoch; returns mean metrics."""
        ...

    def evaluate(self, tasks: list[Task], *, episodes: int, seed: int) -> list[dict[str, Any]]:
        """Mean deterministic returns of each task, 'unadapted' and 'context_adapted'."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def start_trainer(run: Run | PearlRun, seed: int, device: torch.device) -> Trainer:
    """A trainer before its first epoch."""
    if isinstance(run, PearlRun):
        return PearlTrainer.start(run, seed, device)
    return MetaTrainer.start(run, seed, device)
