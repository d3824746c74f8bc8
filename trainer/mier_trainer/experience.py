"""What a run has gathered of its training tasks, and how an epoch adds to it; alike for every trainer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mier.networks import Policy
from mier.replay_buffer import ReplayBuffer
from mier.types import EnvSpec, Transitions
from mier_envs.families import Family, Task
from mier_trainer.epoch_random import EpochRandom
from mier_trainer.rollout import collect, flatten_episodes

_NORMALIZER_ROWS = 20_000


@dataclass
class Experience:
    """Replay per task; `state_dict` carries it."""

    family: Family
    tasks: list[Task]
    before: ReplayBuffer
    """Data gathered before adaptation: the only source of adaptation batches."""
    everything: ReplayBuffer
    environment_steps: int = 0

    @staticmethod
    def start(
        family: Family, tasks: list[Task], spec: EnvSpec, *, before: int, everything: int, device: torch.device
    ) -> Experience:
        """Empty, with room for so many transitions a task."""
        return Experience(
            family,
            tasks,
            ReplayBuffer(spec, len(tasks), before, device),
            ReplayBuffer(spec, len(tasks), everything, device),
        )

    def gather(self, rows: list[int], policy: Policy, contexts: Tensor, draw: EpochRandom, *, adapted: bool) -> float:
        """One exploring episode for each task number in `rows`, under contexts [len(rows), dim]; its mean return.

        Args:
            adapted: whether the contexts say anything of the task; such data is no source of adaptation batches.
        """
        tasks = [self.tasks[t] for t in rows]
        gathered = collect(self.family, tasks, policy, contexts, rng=draw.numpy, generator=draw.torch)
        for task in dict.fromkeys(rows):
            data = gathered.rows(torch.tensor([i for i, t in enumerate(rows) if t == task])).flat()
            self.everything.add(task, data)
            if not adapted:
                self.before.add(task, data)
        self.environment_steps += gathered.steps
        return gathered.returns().mean().item()

    def fit_normalizers(self, modules: Iterable[Any], rate: float, draw: EpochRandom) -> Transitions:
        """Move the modules' observation statistics to all data; returns the rows [n, dim] it was done with."""
        filled = self.everything.filled_tasks
        rows = flatten_episodes(self.everything.sample(filled, _NORMALIZER_ROWS // len(filled), draw.torch))
        for module in modules:
            module.observation_norm.fit(rows.observation, rate=rate)
        return rows

    def state_dict(self) -> dict[str, Any]:
        return {
            "before": self.before.state_dict(),
            "everything": self.everything.state_dict(),
            "environment_steps": self.environment_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.before.load_state_dict(state["before"])
        self.everything.load_state_dict(state["everything"])
        self.environment_steps = state["environment_steps"]
