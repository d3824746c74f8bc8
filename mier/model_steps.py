"""Gradient steps on the model's weights with the context fixed (paper, Algorithm 2, inner loop over N_model)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mier.adaptation import nll
from mier.networks import DynamicsModel
from mier.types import Transitions

_CHECK_EVERY_STEPS = 10


def train_model(
    model: DynamicsModel,
    context: Tensor,
    fit: Transitions,
    held: Transitions,
    steps: int,
    learning_rate: float,
) -> DynamicsModel:
    """A copy of the model after at most `steps` full-batch Adam steps, as it was where it predicted `held` best.

    Early stopping on held-out rows: 400 transitions overfit soon, and a bad model relabels badly.
    """
    trained = copy.deepcopy(model).requires_grad_(True)
    parameters = [p for name, p in trained.named_parameters() if name not in ("prior_context", "inner_log_rate")]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    best, best_nll = copy.deepcopy(trained.state_dict()), _held_nll(trained, held, context)
    for step in range(1, steps + 1):
        loss = nll(trained, fit, context)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        if step % _CHECK_EVERY_STEPS == 0 or step == steps:
            current = _held_nll(trained, held, context)
            if current < best_nll:
                best, best_nll = copy.deepcopy(trained.state_dict()), current
    trained.load_state_dict(best)
    return trained.requires_grad_(False)


@torch.no_grad()
def _held_nll(model: DynamicsModel, held: Transitions, context: Tensor) -> float:
    return nll(model, held, context).item()
