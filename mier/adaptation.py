"""From transitions of a task to its context: three ways, one objective.

The objective is the model's weighted NLL (`nll`). All functions take rows [..., n, dim] whose leading axes are tasks
and return a context [..., context_dim] per task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mier.config import AdaptConfig, AdaptMethod
from mier.networks import DynamicsModel, Prediction
from mier.types import Transitions

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class InsufficientData(ValueError):
    """Fewer transitions than an adaptation needs."""


class NotFinite(ValueError):
    """Numbers ran out of range: the data are far outside what the model knows, or learning diverged."""


def require_finite(context: Tensor) -> None:
    """Refuse a context [context_dim] that is not finite.

    Raises:
        NotFinite: with what to look at.
    """
    if not context.isfinite().all():
        raise NotFinite(
            "expected transitions that lead to a finite context, came ones that do not: "
            "check their units and order against the environment's spec"
        )


def row_nll(prediction: Prediction, target: Tensor, weights: Tensor) -> Tensor:
    """Negative log likelihood of each row [..., n]: the reward's, plus the mean over state dims of the state's."""
    error = target - prediction.mean
    each = 0.5 * (prediction.log_var + error**2 * torch.exp(-prediction.log_var)) + _HALF_LOG_TWO_PI
    return (each * weights).sum(-1)


def nll(model: DynamicsModel, data: Transitions, context: Tensor) -> Tensor:
    """Mean NLL [...] of each task's rows under its context (paper, J_p of section 4.1)."""
    return row_nll(model(data, context), model.target(data), model.target_weights).mean(-1)


def gradient_context(
    model: DynamicsModel, data: Transitions, config: AdaptConfig, *, create_graph: bool, later_steps: int = 0
) -> Tensor:
    """Gradient steps on the context from the prior (paper, section 4.1, Xi_MAML).

    With `create_graph` the outer gradient flows through the steps (second order). The gradient is that of the
    *mean* NLL, so the rate does not depend on the number of rows; its norm is clipped per task.
    """
    tasks = data.reward.shape[:-1]
    context = model.prior_context.expand(*tasks, -1)
    if not create_graph:
        context = context.detach()
    rates = model.inner_log_rate.exp()
    for step in range(config.steps + later_steps):
        with torch.enable_grad():
            if not context.requires_grad:
                context = context.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(nll(model, data, context).sum(), context, create_graph=create_graph)
        norm = gradient.norm(dim=-1, keepdim=True)
        gradient = gradient * (config.gradient_clip / norm.clamp_min(config.gradient_clip))
        rate = rates[step] if step < config.steps else rates[-1] / 10.0
        context = context - rate * gradient
        if not create_graph:
            context = context.detach()
    return context


def gauss_newton_context(model: DynamicsModel, data: Transitions, config: AdaptConfig) -> Tensor:
    """Damped Gauss-Newton (Levenberg-Marquardt) on the summed NLL plus damping/2 |z - prior|^2; first order only.

    Each step is taken per task only where it lowers the objective, else that task's damping grows; so the result is
    never worse than the prior on the data it was given.
    """
    prior = model.prior_context.detach()
    context = prior.expand(*data.reward.shape[:-1], -1).contiguous()
    dim = context.shape[-1]
    basis = torch.eye(dim, dtype=context.dtype, device=context.device)
    eye = basis.expand(*context.shape[:-1], dim, dim)
    trust = torch.full_like(context[..., :1], 1.0)

    def objective(z: Tensor) -> Tensor:
        return nll(model, data, z) * data.reward.shape[-1] + 0.5 * config.damping * (z - prior).square().sum(-1)

    with torch.no_grad():
        target = model.target(data)
        current = objective(context)
        for _ in range(config.gauss_newton_steps):
            jacobian = torch.func.vmap(
                lambda direction, at=context: torch.func.jvp(
                    lambda z: model(data, z).mean, (at,), (direction.expand_as(at),)
                )[1],
                out_dims=-1,
            )(basis)  # [..., n, target_dim, context_dim]
            prediction = model(data, context)
            precision = torch.exp(-prediction.log_var) * model.target_weights
            weighted = jacobian * precision[..., None]
            hessian = torch.einsum("...ndi,...ndj->...ij", weighted, jacobian)
            gradient = torch.einsum("...ndi,...nd->...i", weighted, target - prediction.mean)
            gradient = gradient - config.damping * (context - prior)
            system = hessian + (config.damping + trust[..., None]) * eye
            # A step that is not finite is no better, so it is not taken.
            step = torch.linalg.solve_ex(system.double(), gradient.double()).result.to(context.dtype)
            proposed = objective(context + step)
            better = (proposed < current)[..., None]
            context = torch.where(better, context + step, context)
            current = torch.where(better[..., 0], proposed, current)
            trust = torch.where(better, trust / 5.0, trust * 10.0)
    return context


@dataclass(frozen=True)
class Posterior:
    """Gaussian over the context of a linear-head model."""

    mean: Tensor
    """[..., context_dim]"""
    precision: Tensor
    """[..., context_dim, context_dim]"""


def closed_form_posterior(model: DynamicsModel, data: Transitions) -> Posterior:
    """Bayesian linear regression on the head's features with prior N(prior_context, I) (after ALPaCA, Harrison 2018).

    Differentiable, so meta-training goes through the solve. Sums and solve run in at least float32 whatever
    autocast says: in bf16 it was seen to diverge.
    """
    with torch.autocast(data.reward.device.type, enabled=False):
        head = model.linear_head(data)
        wide = torch.promote_types(data.reward.dtype, torch.float64)
        features, precision = head.features, torch.exp(-head.log_var) * model.target_weights
        residual = model.target(data) - head.offset - (features @ model.prior_context)
        weighted = features * precision[..., None]
        gram = torch.einsum("...ndi,...ndj->...ij", weighted, features).to(wide)
        moment = torch.einsum("...ndi,...nd->...i", weighted, residual).to(wide)
        system = gram + torch.eye(gram.shape[-1], dtype=wide, device=gram.device)
        # Without the check that raises: features that are not finite give a context that is not, which callers refuse.
        factor, failed = torch.linalg.cholesky_ex(system)
        solution = torch.cholesky_solve(moment[..., None], factor).squeeze(-1)
        solution = solution.masked_fill(failed[..., None] != 0, torch.nan)
        return Posterior(model.prior_context + solution.to(features.dtype), system)


def infer_context(
    model: DynamicsModel,
    data: Transitions,
    config: AdaptConfig,
    *,
    create_graph: bool = False,
    later_steps: int = 0,
) -> Tensor:
    """The context [..., context_dim] of each task by the configured method."""
    if config.method is AdaptMethod.CLOSED_FORM:
        with torch.set_grad_enabled(create_graph):
            return closed_form_posterior(model, data).mean
    if config.method is AdaptMethod.GAUSS_NEWTON and not create_graph:
        return gauss_newton_context(model, data, config)
    # Gauss-Newton at test time is meta-trained through gradient steps: only these have an outer gradient.
    return gradient_context(model, data, config, create_graph=create_graph, later_steps=later_steps)


def meta_loss(
    model: DynamicsModel, adaptation: Transitions, evaluation: Transitions, config: AdaptConfig
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Outer loss (paper, J_p(theta, phi, D_adapt, D_eval)) over tasks [tasks, n, dim], its parts, and the
    detached contexts [tasks, context_dim].

    The penalty is the paper's regression weight on post-update contexts.
    """
    context = infer_context(model, adaptation, config, create_graph=True)
    loss = nll(model, evaluation, context).mean()
    size = context.square().sum(-1).mean()
    metrics = {"nll": loss.detach(), "context_square": size.detach()}
    return loss + config.context_penalty * size, metrics, context.detach()


@dataclass(frozen=True)
class Adaptation:
    """What one context adaptation found."""

    context: np.ndarray
    """float32 [context_dim]: the model context"""
    nll_before: float
    """Held-out NLL under the prior context."""
    nll_after: float
    """Held-out NLL under `context`; the hold-out took no part in finding it."""
    ood_score: float
    """Distance of the context from those of the training tasks, in their standard deviations (RMS over entries)."""
    transitions_used: int


def split_holdout(data: Transitions, fraction: float) -> tuple[Transitions, Transitions]:
    """(fit, held out) rows; the split depends on the number of rows alone, so a repeat sees the same one."""
    order = torch.randperm(data.size, generator=torch.Generator().manual_seed(data.size))
    held = max(1, round(fraction * data.size))
    return data.rows(order[held:]), data.rows(order[:held])


def adapt(model: DynamicsModel, transitions: Transitions, config: AdaptConfig, training_contexts: Tensor) -> Adaptation:
    """Adapt from the prior to one task's transitions [n, dim]; deterministic.

    Args:
        training_contexts: [tasks, context_dim], what the score compares with.

    Raises:
        InsufficientData: fewer than `config.min_transitions` rows.
    """
    if transitions.size < config.min_transitions:
        raise InsufficientData(
            f"adaptation needs at least {config.min_transitions} transitions, came {transitions.size}; submit more"
        )
    fit, held = split_holdout(transitions, config.holdout_fraction)
    context = infer_context(model, fit, config, later_steps=config.later_steps)
    with torch.no_grad():
        before = nll(model, held, model.prior_context).item()
        after = nll(model, held, context).item()
        known = training_contexts.to(context)
        spread = known.std(0, correction=0).clamp_min(1e-3)
        score = ((context - known.mean(0)) / spread).square().mean().sqrt().item()
    return Adaptation(context.float().cpu().numpy(), before, after, score, transitions.size)
