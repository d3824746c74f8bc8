"""From transitions of a task to its context: three ways, one objective.

The objective is the model's weighted NLL (`nll`). All functions take rows [..., n, dim] whose leading axes are tasks
and return a context [..., context_dim] per task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mier import meta_gradient
from mier.config import AdaptConfig, AdaptMethod
from mier.networks import DynamicsModel, Prediction
from mier.types import Transitions

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_START_ROWS = 128
_COVARIANCE_FLOOR = 0.05
_TASKS_AT_ONCE = 8
"""More rows than so many tasks have fall out of a core's cache, and nothing is gained by them."""


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


def gauss_newton_context(
    model: DynamicsModel, data: Transitions, config: AdaptConfig, known: Tensor | None = None
) -> Tensor:
    """The most probable context by damped Gauss-Newton (Levenberg-Marquardt), for noise of unknown scale.

    The objective is n/2 rho(misfit) + 1/2 |z - prior|^2_P: misfit is the mean square error of n rows, weighted by the
    precisions predicted under the prior; rho(m) is m up to 1 and 1 + log m beyond (there the noise's scale is fitted as
    well); P is `damping` times the inverse covariance of `known`, or the identity. Far out of distribution the misfit
    is large at first, so the search keeps to where training contexts lie until it fits; on the NLL itself it was seen
    to leave for contexts that call everything noise.

    Args:
        known: [k, context_dim], contexts of training tasks; of use where `config.starts` > 1. The search then starts
            from so many of these and keeps the best end: beyond the training range there is more than one minimum.
    """
    prior = model.prior_context.detach()
    context = prior.expand(*data.reward.shape[:-1], -1).contiguous()
    pull = pull_towards_prior(prior, config, known)
    if known is not None and config.starts > 1:
        starts = _spread(torch.cat([prior[None], known.to(prior)]), config.starts)
        few = _sample(data, len(starts))
        starts = starts.view(-1, *(1 for _ in context.shape[:-1]), len(prior)).expand(-1, *context.shape)
        ends, objective = _descend(model, few, config, starts.contiguous(), pull)
        context = ends.gather(0, objective.argmin(0)[None, ..., None].expand(1, *context.shape))[0]
    return _descend(model, data, config, context, pull)[0]


def pull_towards_prior(prior: Tensor, config: AdaptConfig, known: Tensor | None) -> Tensor:
    """[context_dim, context_dim], the precision of the prior: of the known contexts' spread, or isotropic."""
    if known is not None and config.starts > 1:
        return config.damping * _precision(known.to(prior))
    return config.damping * torch.eye(len(prior)).to(prior)


@torch.no_grad()
def _descend(
    model: DynamicsModel, data: Transitions, config: AdaptConfig, context: Tensor, pull: Tensor
) -> tuple[Tensor, Tensor]:
    """Gauss-Newton from `context` [..., context_dim]: where it ends, and the objective [...] there.

    A step is taken per task only where it lowers the objective, so the end is never worse than the start.
    """
    prior, rows = model.prior_context.detach(), data.reward.shape[-1]
    basis = torch.eye(len(prior), dtype=context.dtype, device=context.device)
    trust = torch.ones_like(context[..., :1])
    target = model.target(data)
    # Under the prior, for all starts: else their objectives could not be compared.
    precision = torch.exp(-model(data, prior.expand_as(context)).log_var) * model.target_weights
    weight = model.target_weights.sum()

    def misfit(error: Tensor) -> Tensor:
        return (error.square() * precision).sum(-1).mean(-1) / weight

    def objective(z: Tensor, m: Tensor) -> Tensor:
        pulled = ((z - prior) @ pull * (z - prior)).sum(-1)
        return 0.5 * (rows * weight * torch.where(m > 1.0, 1.0 + m.log(), m) + pulled)

    mean, derivative = linearised(model, data, context)
    error, jacobian = target - mean, derivative()
    squares = misfit(error)
    current = objective(context, squares)
    for i in range(config.gauss_newton_steps):
        weighted = jacobian * (precision / squares.clamp_min(1.0)[..., None, None])[..., None]
        gradient = torch.einsum("...ndi,...nd->...i", weighted, error) - (context - prior) @ pull
        system = torch.einsum("...ndi,...ndj->...ij", weighted, jacobian) + pull + trust[..., None] * basis
        # A step that is not finite is no better, so it is not taken.
        step = torch.linalg.solve_ex(system.double(), gradient.double()).result.to(context.dtype)
        mean, derivative = linearised(model, data, context + step)
        proposed_error = target - mean
        proposed_squares = misfit(proposed_error)
        proposed = objective(context + step, proposed_squares)
        better = proposed < current
        context = torch.where(better[..., None], context + step, context)
        current = torch.where(better, proposed, current)
        trust = torch.where(better[..., None], trust / 5.0, trust * 10.0)
        if better.any() and i + 1 < config.gauss_newton_steps:
            squares = torch.where(better, proposed_squares, squares)
            error = torch.where(better[..., None, None], proposed_error, error)
            jacobian = torch.where(better[..., None, None, None], derivative(), jacobian)
    return context, current


def linearised(model: DynamicsModel, data: Transitions, context: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """The predicted mean [..., n, target_dim], and what gives its Jacobian [..., n, target_dim, context_dim] by the
    context [..., context_dim], from the same pass where that is cheaper."""
    if model.target_dim < context.shape[-1]:
        # Rows do not see each other: with a context of its own for each row, one backward pass serves them all.
        rows = Transitions(*(field.unsqueeze(data.reward.ndim) for field in data))
        with torch.enable_grad():
            own = context[..., None, :].expand(*data.reward.shape, -1).contiguous().requires_grad_()
            mean = model(rows, own).mean[..., 0, :]

        def backward() -> Tensor:
            parts = mean.sum(tuple(range(data.reward.ndim)))
            return torch.stack([torch.autograd.grad(m, own, retain_graph=True)[0] for m in parts], -2)

        return mean.detach(), torch.enable_grad()(backward)
    basis = torch.eye(context.shape[-1], dtype=context.dtype, device=context.device)

    def forward() -> Tensor:
        found: Tensor = torch.func.vmap(
            lambda along: torch.func.jvp(lambda z: model(data, z).mean, (context,), (along.expand_as(context),))[1],
            out_dims=-1,
        )(basis)
        return found

    return model(data, context).mean.detach(), torch.no_grad()(forward)


def _precision(known: Tensor) -> Tensor:
    """[context_dim, context_dim], inverse covariance of contexts [k, context_dim].

    The floor leaves directions that no training task moved stiff, not shut: a new task may need one of them.
    """
    centred = known - known.mean(0)
    covariance = centred.T @ centred / len(known)
    floor = _COVARIANCE_FLOOR * covariance.diagonal().mean() + 1e-6
    stiff: Tensor = torch.linalg.inv((covariance + floor * torch.eye(len(covariance)).to(covariance)).double())
    return stiff.to(known)


def _spread(candidates: Tensor, count: int) -> Tensor:
    """At most `count` of the candidates [k, context_dim], far apart: the first, then each farthest from those taken."""
    taken = [0]
    distance = (candidates - candidates[0]).norm(dim=-1)
    while len(taken) < min(count, len(candidates)):
        taken.append(int(distance.argmax()))
        distance = torch.minimum(distance, (candidates - candidates[taken[-1]]).norm(dim=-1))
    return candidates[taken]


def _sample(data: Transitions, copies: int) -> Transitions:
    """Evenly chosen rows of each task, repeated on a new first axis."""
    axis, rows = data.reward.ndim - 1, data.reward.shape[-1]
    chosen = torch.arange(0, rows, max(1, rows // _START_ROWS), device=data.reward.device)
    few = (field.index_select(axis, chosen) for field in data)
    return Transitions(*(field.expand(copies, *field.shape) for field in few))


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
    known: Tensor | None = None,
) -> Tensor:
    """The context [..., context_dim] of each task by the configured method; `known` as in `gauss_newton_context`."""
    if config.method is AdaptMethod.CLOSED_FORM:
        with torch.set_grad_enabled(create_graph):
            return closed_form_posterior(model, data).mean
    if config.method is AdaptMethod.GAUSS_NEWTON and not create_graph:
        return gauss_newton_context(model, data, config, known)
    # Gauss-Newton at test time is meta-trained through gradient steps: only these have an outer gradient.
    return gradient_context(model, data, config, create_graph=create_graph, later_steps=later_steps)


def meta_loss(
    model: DynamicsModel, adaptation: Transitions, evaluation: Transitions, config: AdaptConfig
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Outer loss (paper, J_p(theta, phi, D_adapt, D_eval)) over tasks [tasks, n, dim], its parts, and the
    detached contexts [tasks, context_dim].

    The penalty is the paper's regression weight on post-update contexts.
    """
    if torch.is_grad_enabled() and meta_gradient.applies(model, config):
        found = meta_gradient.outer_gradient(model, adaptation, evaluation, config)
        size = found.context.square().sum(-1).mean()
        loss = meta_gradient.differentiable(found.nll + config.context_penalty * size, model, found.gradients)
        return loss, {"nll": found.nll, "context_square": size}, found.context
    context = infer_context(model, adaptation, config, create_graph=True)
    loss, metrics = joint_loss(model, evaluation, context, config)
    return loss, metrics, context.detach()


def joint_loss(
    model: DynamicsModel, evaluation: Transitions, context: Tensor, config: AdaptConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of `AdaptConfig.joint`, and its parts: the rows [tasks, n, dim] under their tasks' own learned contexts
    [tasks, context_dim]. It differentiates in both; no adaptation takes part."""
    loss = nll(model, evaluation, context).mean()
    size = context.square().sum(-1).mean()
    return loss + config.context_penalty * size, {"nll": loss.detach(), "context_square": size.detach()}


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


def ood_score(contexts: Tensor, known: Tensor) -> Tensor:
    """[...]: distance of contexts [..., context_dim] from known ones [k, context_dim], in their standard deviations
    (RMS over entries)."""
    known = known.to(contexts)
    spread = known.std(0, correction=0).clamp_min(1e-3)
    return ((contexts - known.mean(0)) / spread).square().mean(-1).sqrt()


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
    return adapt_many(model, [transitions], config, training_contexts)[0]


def adapt_many(
    model: DynamicsModel, tasks: Sequence[Transitions], config: AdaptConfig, training_contexts: Tensor
) -> list[Adaptation]:
    """`adapt` of several tasks; those with equally many transitions go through the model together.

    Raises:
        InsufficientData: one of them has fewer than `config.min_transitions` rows.
    """
    for transitions in tasks:
        if transitions.size < config.min_transitions:
            raise InsufficientData(
                f"adaptation needs at least {config.min_transitions} transitions, came {transitions.size}; submit more"
            )
    found: dict[int, Adaptation] = {}
    for size in {transitions.size for transitions in tasks}:
        alike = [i for i, transitions in enumerate(tasks) if transitions.size == size]
        for start in range(0, len(alike), _TASKS_AT_ONCE):
            some = alike[start : start + _TASKS_AT_ONCE]
            found |= zip(some, _adapted([tasks[i] for i in some], model, config, training_contexts), strict=True)
    return [found[i] for i in range(len(tasks))]


def _adapted(
    tasks: list[Transitions], model: DynamicsModel, config: AdaptConfig, training_contexts: Tensor
) -> list[Adaptation]:
    splits = [split_holdout(transitions, config.holdout_fraction) for transitions in tasks]
    # One task alone keeps its rows as they are: without the axis of tasks it takes the same path as ever.
    alone = len(tasks) == 1
    fit, held = (
        each[0] if alone else Transitions(*(torch.stack(field) for field in zip(*each, strict=True)))
        for each in zip(*splits, strict=True)
    )
    contexts = infer_context(model, fit, config, later_steps=config.later_steps, known=training_contexts)
    with torch.no_grad():
        before = nll(model, held, model.prior_context.expand_as(contexts)).flatten().tolist()
        after = nll(model, held, contexts).flatten().tolist()
        scores = ood_score(contexts, training_contexts).flatten().tolist()
    values = contexts.float().cpu().view(len(tasks), -1).numpy()
    return [
        Adaptation(values[i].copy(), before[i], after[i], scores[i], transitions.size)
        for i, transitions in enumerate(tasks)
    ]
