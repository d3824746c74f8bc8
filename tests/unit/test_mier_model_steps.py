"""Model steps at test time: a better copy, the original and the context as they were, never worse on the hold-out."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from mier.adaptation import nll, split_holdout
from mier.checkpoint import Checkpoint
from mier.model_steps import train_model
from mier.serialization import same
from mier.types import Transitions

Make = Callable[..., Transitions]


@pytest.fixture
def split(dynamics_checkpoint: Checkpoint, transitions: Make) -> tuple[Transitions, Transitions]:
    return split_holdout(transitions(dynamics_checkpoint.spec, 100), 0.2)


def test_steps_predict_held_out_rows_better(
    dynamics_checkpoint: Checkpoint, split: tuple[Transitions, Transitions]
) -> None:
    model, context = dynamics_checkpoint.agent.model, torch.full((4,), 0.5)
    before = copy.deepcopy(model.state_dict())
    trained = train_model(model, context, *split, steps=60, learning_rate=1e-3)
    assert nll(trained, split[1], context) < nll(model, split[1], context) - 0.1
    assert same(dict(model.state_dict()), dict(before))
    for kept in ("prior_context", "inner_log_rate", "observation_norm.mean", "target_norm.std"):
        assert torch.equal(trained.state_dict()[kept], before[kept]), kept
    assert not any(p.requires_grad for p in trained.parameters())


def test_steps_that_hurt_on_the_hold_out_are_taken_back(
    dynamics_checkpoint: Checkpoint, split: tuple[Transitions, Transitions]
) -> None:
    (fit, held), context = split, torch.zeros(4)
    model = train_model(dynamics_checkpoint.agent.model, context, fit, held, steps=150, learning_rate=3e-3)
    # Fitting rows that contradict the held-out ones can only hurt a model that predicts these well.
    wrong = fit._replace(reward=fit.reward + 50.0, next_observation=fit.next_observation - 50.0)
    trained = train_model(model, context, wrong, held, steps=40, learning_rate=3e-3)
    assert same(dict(trained.state_dict()), dict(model.state_dict()))


def test_it_keeps_the_best_moment_not_the_last(
    dynamics_checkpoint: Checkpoint, split: tuple[Transitions, Transitions]
) -> None:
    fit, held = split
    few = fit.rows(slice(0, 5))  # soon overfitted
    model, context = dynamics_checkpoint.agent.model, torch.zeros(4)
    found = [
        nll(train_model(model, context, few, held, steps=n, learning_rate=1e-2), held, context).item()
        for n in (10, 20, 40, 80, 160)
    ]
    assert found == sorted(found, reverse=True)  # more steps are never worse


def test_it_repeats(dynamics_checkpoint: Checkpoint, split: tuple[Transitions, Transitions]) -> None:
    model, context = dynamics_checkpoint.agent.model, torch.zeros(4)
    one, two = (train_model(model, context, *split, steps=12, learning_rate=1e-3) for _ in range(2))
    assert same(dict(one.state_dict()), dict(two.state_dict()))
