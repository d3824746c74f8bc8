"""Shared dynamics learn where actions lead, whatever the tasks' rewards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mier.config import ModelConfig
from mier.replay_buffer import ReplayBuffer
from mier.types import EnvSpec, Transitions
from mier.world import shared_dynamics
from mier_trainer.fit_dynamics import fit_dynamics


def gathered(spec: EnvSpec, transitions: Callable[..., Transitions], reward: float) -> ReplayBuffer:
    """Two of three tasks with data, of different lengths."""
    buffer = ReplayBuffer(spec, 3, 1000, torch.device("cpu"))
    for task, rows in ((0, 300), (2, 500)):
        data = transitions(spec, rows, seed=task)
        buffer.add(task, data._replace(reward=reward * torch.randn(rows)))
    return buffer


def test_it_predicts_where_actions_lead(reward_spec: EnvSpec, transitions: Callable[..., Transitions]) -> None:
    model = shared_dynamics(reward_spec, ModelConfig(context_dim=0, hidden=(32, 32), trained_prior=False))
    error = fit_dynamics(model, gathered(reward_spec, transitions, 1.0), 600, seed=1)
    new = transitions(reward_spec, 200, seed=9)
    moved = model.target_norm.inverse(model(new, torch.zeros(0)).mean)[:, 1:]
    wanted = new.next_observation - new.observation
    unexplained = ((moved - wanted).square().mean(0) / wanted.var(0)).mean().item()
    assert unexplained < 0.1
    assert error == pytest.approx(unexplained, abs=0.05)
    assert not any(p.requires_grad for p in model.parameters())


def test_rewards_do_not_matter_and_the_seed_does(reward_spec: EnvSpec, transitions: Callable[..., Transitions]) -> None:
    def fitted(reward: float, seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = shared_dynamics(reward_spec, ModelConfig(context_dim=0, hidden=(8,), trained_prior=False))
        fit_dynamics(model, gathered(reward_spec, transitions, reward), 5, seed)
        return model.head.weight.detach()

    assert torch.equal(fitted(1.0, 1), fitted(100.0, 1))
    assert not torch.equal(fitted(1.0, 1), fitted(1.0, 2))
