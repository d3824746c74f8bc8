"""The context kept up with each transition as it comes: a recursive Gauss-Newton step in information form.

An iterated extended Kalman filter over the context, with the model's predicted precisions as the noise:

    L' = forgetting L + (1 - forgetting) P + J^T W J          W = precisions / max(1, misfit)
    z' = z + L'^-1 J^T W (target - mean(z))                   J = d mean / d z at z

P is the pull towards the prior that the batch solution has (`mier.adaptation.gauss_newton_context`). One row costs one
pass through the model and its Jacobian, however many rows came before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mier.adaptation import linearised, pull_towards_prior
from mier.config import AdaptConfig
from mier.networks import DynamicsModel
from mier.types import Transitions

_MISFIT_ROWS = 50.0
"""The misfit's running mean forgets what is older: far from the solution rows fit worse than they will."""


@dataclass(frozen=True)
class StreamingContext:
    """A Gaussian belief over the context after some transitions; immutable."""

    mean: Tensor
    """[context_dim]"""
    information: Tensor
    """[context_dim, context_dim], the inverse covariance, float64"""
    misfit: float
    """Running mean square error in units of what the model predicts; above 1 the rows surprise it."""
    rows: int

    @staticmethod
    def start(model: DynamicsModel, config: AdaptConfig, known: Tensor | None = None) -> StreamingContext:
        """Before any data; `known` [k, context_dim] are contexts of training tasks, as for the batch solution."""
        prior = model.prior_context.detach().clone()
        return StreamingContext(prior, pull_towards_prior(prior, config, known).double(), 1.0, 0)

    @staticmethod
    def after(
        model: DynamicsModel,
        transitions: Transitions,
        context: Tensor,
        config: AdaptConfig,
        known: Tensor | None = None,
    ) -> StreamingContext:
        """What the batch solution `context` [context_dim] of transitions [n, dim] leaves to go on from.

        Far out of distribution a stream should begin so: from the prior on, its first linearisations mislead it.
        """
        begun = replace(StreamingContext.start(model, config, known), mean=context)
        return _taken_in(model, begun, begun.information, transitions, iterations=1, move=False)


def observe(
    model: DynamicsModel,
    belief: StreamingContext,
    transitions: Transitions,
    config: AdaptConfig,
    known: Tensor | None = None,
    *,
    forgetting: float = 1.0,
    iterations: int = 2,
) -> StreamingContext:
    """The belief after transitions [n, dim], taken in together at one linearisation.

    Args:
        forgetting: of the information per transition; below 1 old transitions count less, for a task that drifts.
        iterations: how often the linearisation is moved to where it led.
    """
    if not 0.0 < forgetting <= 1.0:
        raise ValueError(f"forgetting must be above 0 and at most 1, came {forgetting}")
    pull = pull_towards_prior(model.prior_context.detach(), config, known).double()
    kept = forgetting**transitions.size
    information = kept * belief.information + (1.0 - kept) * pull
    return _taken_in(model, belief, information, transitions, iterations=iterations, move=True)


@torch.no_grad()
def _taken_in(
    model: DynamicsModel,
    belief: StreamingContext,
    information: Tensor,
    transitions: Transitions,
    *,
    iterations: int,
    move: bool,
) -> StreamingContext:
    n, weight = transitions.size, model.target_weights.sum().item()
    target = model.target(transitions)
    precision = torch.exp(-model(transitions, model.prior_context).log_var) * model.target_weights
    z, misfit, after = belief.mean, belief.misfit, information
    for _ in range(iterations):
        mean, derivative = linearised(model, transitions, z)
        error, jacobian = target - mean, derivative()
        surprise = (error.square() * precision).sum().item() / (n * weight)
        misfit = belief.misfit + (surprise - belief.misfit) * min(1.0, n / _MISFIT_ROWS)
        weighted = jacobian * (precision / max(1.0, misfit))[..., None]
        after = information + torch.einsum("ndi,ndj->ij", weighted, jacobian).double()
        if move:
            moment = torch.einsum("ndi,nd->i", weighted, error).double() + information @ (belief.mean - z).double()
            z = z + torch.linalg.solve_ex(after, moment).result.to(z.dtype)
    return StreamingContext(z, after, misfit, belief.rows + n)
