"""Where actions lead, learned by regression from all that a run has gathered."""

from __future__ import annotations

import torch
from torch import Tensor

from mier.networks import DynamicsModel
from mier.replay_buffer import ReplayBuffer
from mier.types import Transitions
from mier_trainer.regression import regress
from mier_trainer.rollout import flatten_episodes

_TASKS, _ROWS = 8, 64
_NORMALIZER_ROWS = 20_000


def fit_dynamics(model: DynamicsModel, experience: ReplayBuffer, steps: int, seed: int) -> float:
    """Train a shared dynamics model in place; its mean squared error, in units of the targets' variance, at the end.

    Batches are even over tasks, not over rows.

    Args:
        experience: with at least one filled task.
        steps: gradient steps of 512 rows each.
    """
    filled = experience.filled_tasks

    def draw(generator: torch.Generator) -> tuple[Transitions, Tensor]:
        tasks = filled[torch.randint(len(filled), (_TASKS,), generator=generator)]
        rows = flatten_episodes(experience.sample(tasks, _ROWS, generator))
        return rows, torch.zeros(rows.size, 0)

    first = torch.Generator().manual_seed(seed)
    rows = flatten_episodes(experience.sample(filled, max(1, _NORMALIZER_ROWS // len(filled)), first))
    return regress(model, rows, draw, steps, seed, dynamics_weights(model))


def dynamics_weights(model: DynamicsModel) -> Tensor:
    """[target_dim]: the first entry is a reward, which is the task's own affair."""
    weights = torch.full((model.target_dim,), 1.0 / (model.target_dim - 1))
    weights[0] = 0.0
    return weights
