"""Where actions lead, learned by regression from all that a run has gathered."""

from __future__ import annotations

import torch

from mier.networks import DynamicsModel
from mier.replay_buffer import ReplayBuffer
from mier_trainer.rollout import flatten_episodes

_TASKS, _ROWS = 8, 64
_NORMALIZER_ROWS = 20_000
_LEARNING_RATE = 1e-3


def fit_dynamics(model: DynamicsModel, experience: ReplayBuffer, steps: int, seed: int) -> float:
    """Train a shared dynamics model in place; its mean squared error, in units of the targets' variance, at the end.

    Batches are even over tasks, not over rows. The rate falls to zero along a cosine: imagined episodes multiply
    whatever noise is left in the weights.

    Args:
        experience: with at least one filled task.
        steps: gradient steps of 512 rows each.
    """
    draw, filled = torch.Generator().manual_seed(seed), experience.filled_tasks
    rows = flatten_episodes(experience.sample(filled, max(1, _NORMALIZER_ROWS // len(filled)), draw))
    model.observation_norm.fit(rows.observation)
    target = torch.cat([rows.reward[:, None], rows.next_observation - rows.observation], -1)
    model.target_norm.fit(target)
    model.requires_grad_(True)
    # The context has no entries, and inner rates belong to adaptation.
    weights = [p for name, p in model.named_parameters() if name not in ("prior_context", "inner_log_rate")]
    optimizer = torch.optim.Adam(weights, lr=_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    recent = torch.zeros(())
    for _ in range(steps):
        tasks = filled[torch.randint(len(filled), (_TASKS,), generator=draw)]
        batch = flatten_episodes(experience.sample(tasks, _ROWS, draw))
        prediction, wanted = model(batch, model.prior_context), model.target(batch)[:, 1:]
        # The first entry is a reward, which is the task's own affair.
        mean, log_var = prediction.mean[:, 1:].float(), prediction.log_var[:, 1:].float()
        error = (wanted - mean).square()
        loss = 0.5 * (error * torch.exp(-log_var) + log_var).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent = torch.lerp(recent, error.mean().detach(), 0.02)
    model.requires_grad_(False)
    return recent.item()
