"""The recursive context: exact where the model is linear in it, near the batch solution where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mier import streaming
from mier.adaptation import closed_form_posterior, gauss_newton_context
from mier.config import AdaptConfig, AdaptMethod, Conditioning, ModelConfig
from mier.networks import DynamicsModel
from mier.types import EnvSpec, Transitions

CONFIG = AdaptConfig(method=AdaptMethod.GAUSS_NEWTON)
# Noise as large as the targets: no row is a surprise.
LINEAR = ModelConfig(
    context_dim=3, hidden=(16, 16), conditioning=Conditioning.LINEAR_HEAD, log_var_min=0.0, log_var_max=0.5
)


def one_by_one(model: DynamicsModel, rows: Transitions, **options: float) -> streaming.StreamingContext:
    belief = streaming.StreamingContext.start(model, CONFIG)
    for i in range(rows.size):
        belief = streaming.observe(model, belief, rows.rows(slice(i, i + 1)), CONFIG, **options)  # type: ignore[arg-type]
    return belief


@pytest.fixture
def linear(reward_spec: EnvSpec) -> DynamicsModel:
    return DynamicsModel(reward_spec, LINEAR, CONFIG).requires_grad_(False)


@pytest.fixture
def linear_rows(linear: DynamicsModel, reward_spec: EnvSpec, transitions: Callable[..., Transitions]) -> Transitions:
    """Rewards that the model gives under a context of its own."""
    rows = transitions(reward_spec, 40)
    reward = linear.target_norm.inverse(linear(rows, torch.tensor([0.7, -0.4, 0.2])).mean)[..., 0]
    return rows._replace(reward=reward)


def test_it_is_the_posterior_of_a_linear_model(linear: DynamicsModel, linear_rows: Transitions) -> None:
    belief, posterior = one_by_one(linear, linear_rows), closed_form_posterior(linear, linear_rows)
    assert belief.rows == 40
    assert posterior.mean.abs().max() > 0.01
    torch.testing.assert_close(belief.mean, posterior.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(belief.information, posterior.precision, rtol=1e-5, atol=1e-6)


def test_many_at_once_are_many_in_turn(linear: DynamicsModel, linear_rows: Transitions) -> None:
    start = streaming.StreamingContext.start(linear, CONFIG)
    at_once = streaming.observe(linear, start, linear_rows, CONFIG)
    torch.testing.assert_close(at_once.mean, one_by_one(linear, linear_rows).mean, rtol=1e-4, atol=1e-5)
    begun = streaming.StreamingContext.after(linear, linear_rows, at_once.mean, CONFIG)
    assert torch.equal(begun.mean, at_once.mean)
    torch.testing.assert_close(begun.information, at_once.information)


def test_forgetting_follows_a_task_that_changes(linear: DynamicsModel, linear_rows: Transitions) -> None:
    other = linear_rows._replace(reward=-linear_rows.reward)
    both = Transitions.concatenate([linear_rows] * 4 + [other] * 4)
    alone = one_by_one(linear, Transitions.concatenate([other] * 4), forgetting=0.95).mean
    kept, forgot = (one_by_one(linear, both, forgetting=f).mean for f in (1.0, 0.95))
    assert (forgot - alone).norm() < 0.2 * (kept - alone).norm()
    with pytest.raises(ValueError, match="forgetting must be above 0"):
        one_by_one(linear, linear_rows, forgetting=0.0)


def test_it_follows_the_batch_solution_of_a_bent_model(
    dynamics_spec: EnvSpec, transitions: Callable[..., Transitions]
) -> None:
    model = DynamicsModel(dynamics_spec, ModelConfig(context_dim=3, hidden=(16, 16), log_var_min=-1.0), CONFIG)
    model.requires_grad_(False)
    rows, true = transitions(dynamics_spec, 120), torch.tensor([1.0, -0.8, 0.5])
    given = model.target_norm.inverse(model(rows, true).mean)
    rows = rows._replace(reward=given[:, 0], next_observation=rows.observation + given[:, 1:])
    batch = gauss_newton_context(model, rows, CONFIG)
    belief = one_by_one(model, rows)
    assert batch.norm() > 0.1
    assert (belief.mean - batch).norm() < 0.05 * batch.norm()
