"""The outer gradient of meta-training (paper, section 4.1), worked out by hand for models that append the context.

Autograd goes through the inner gradient steps twice, a node for each small operation. Here the second pass is written
down. Between their kinks leaky ReLUs are linear, so that of all second derivatives only the NLL's remain, and those are
of one output row each:

    inner step    h = net(x, c)            g = backward(dNLL/dout)       c' = c - rate clip(sum_rows g_1 Wc)
    outer pass    u = -rate dclip(lambda)  t = tangent of h along u      G = backward(d2NLL/dout2 t_out)
                  dW += g^T t + G^T h      lambda += sum_rows G_1 Wc     (dWc, biases alike)

with lambda the outer loss's derivative by the context, from the last step back to the first. Equal to autograd's
gradient up to rounding (tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from mier.config import AdaptConfig, AdaptMethod, Conditioning
from mier.networks import LEAKY_SLOPE, DynamicsModel
from mier.types import Transitions


def applies(model: DynamicsModel, config: AdaptConfig) -> bool:
    """Whether the derivation holds: gradient steps on a context that is appended to the input, and no more."""
    return (
        config.method is AdaptMethod.GRADIENT
        and model.config.conditioning is Conditioning.CONCAT
        and not model.gate_dim
        and model.free_dim > 0
    )


class Outer(NamedTuple):
    """The meta-loss and what it differentiates to."""

    nll: Tensor
    """[] mean over tasks of the evaluation rows' NLL under the adapted contexts"""
    context: Tensor
    """[tasks, context_dim], adapted"""
    gradients: dict[str, Tensor]
    """Of nll + penalty, by parameter name."""


@torch.no_grad()
def outer_gradient(
    model: DynamicsModel, adaptation: Transitions, evaluation: Transitions, config: AdaptConfig
) -> Outer:
    """Of tasks' rows [tasks, n, dim]; matrix products in autocast's type where that is on, the rest in the weights'."""
    device = adaptation.reward.device.type
    net = _Net.of(model, device)
    with torch.autocast(device, enabled=False):
        return _outer_gradient(model, net, adaptation, evaluation, config)


def _outer_gradient(
    model: DynamicsModel, net: _Net, adaptation: Transitions, evaluation: Transitions, config: AdaptConfig
) -> Outer:
    tasks = len(adaptation.reward)
    context = model.prior_context.expand(tasks, -1)
    fit, held = _Rows.of(model, net, adaptation), _Rows.of(model, net, evaluation)
    rates, steps = model.inner_log_rate.exp(), []
    for rate in rates[: config.steps]:
        step = _Pass.at(net, fit, context)
        gradient = step.adjoints[0].unflatten(0, (tasks, -1)).sum(1, dtype=context.dtype) @ net.context_weight
        norm = gradient.norm(dim=-1, keepdim=True)
        scale = config.gradient_clip / norm.clamp_min(config.gradient_clip)
        steps.append((step, context, gradient, norm, scale))
        context = context - rate * gradient * scale
    last = _Pass.at(net, held, context, share=1.0 / tasks)
    sums = _Sums(net, tasks)
    by_context = sums.add(held, last.hidden, last.adjoints, context)
    by_context = by_context + (2.0 * config.context_penalty / tasks) * context
    by_rate = torch.zeros_like(model.inner_log_rate)
    for i in reversed(range(config.steps)):
        step, before, gradient, norm, scale = steps[i]
        by_rate[i] = -(by_context * rates[i] * gradient * scale).sum(0)
        by_clipped = -rates[i] * by_context
        # The clip's own derivative: past its radius only what is across the gradient counts.
        along = (by_clipped * gradient).sum(-1, keepdim=True) / norm.square()
        u = scale * torch.where(norm > config.gradient_clip, by_clipped - along * gradient, by_clipped)
        tangents, curvature = step.along(net, fit, u)
        sums.pair(step.adjoints, tangents, u)
        by_context = by_context + sums.add(fit, step.hidden, curvature, before)
    gradients = sums.gradients()
    gradients["prior_context"], gradients["inner_log_rate"] = by_context.sum(0), by_rate
    return Outer(last.nll.mean(), context, gradients)


class _Known(torch.autograd.Function):
    """A value with gradients that are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, by_value: Tensor) -> Any:
        return None, None, *(by_value * g for g in ctx.gradients)


def differentiable(value: Tensor, model: DynamicsModel, gradients: dict[str, Tensor]) -> Tensor:
    """`value` [] as a tensor whose `backward` hands the model's parameters these gradients."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad and name in gradients]
    loss: Tensor = _Known.apply(value, [gradients[name] for name, _ in trained], *(p for _, p in trained))  # type: ignore[no-untyped-call]
    return loss


@dataclass(frozen=True)
class _Net:
    """The model's weights in the type that its matrix products are taken in."""

    model: DynamicsModel
    weights: list[Tensor]
    """Of each layer and the head, [out, in]"""
    biases: list[Tensor]
    context_weight: Tensor
    """[hidden, context_dim], in the weights' own type"""

    @staticmethod
    def of(model: DynamicsModel, device: str) -> _Net:
        layers = [*model.layers, model.head]
        weights = [p for layer in layers for p in (layer.weight,)]
        biases = [p for layer in layers for p in (layer.bias,)]
        if torch.is_autocast_enabled(device):
            kind = torch.get_autocast_dtype(device)
            weights, biases = [w.to(kind) for w in weights], [b.to(kind) for b in biases]
        return _Net(model, weights, biases, cast(Tensor, model.context_layers[0].weight))


@dataclass(frozen=True)
class _Rows:
    """Rows of all tasks, flat, as the network takes them."""

    inputs: Tensor
    """[rows, input_dim]"""
    first: Tensor
    """[tasks, n, hidden], what the first layer makes of them before the context is added"""
    target: Tensor
    """[rows, target_dim]"""

    @staticmethod
    def of(model: DynamicsModel, net: _Net, rows: Transitions) -> _Rows:
        inputs = model.inputs(rows, model.prior_context).flatten(0, 1).to(net.weights[0].dtype)
        first = F.linear(inputs, net.weights[0], net.biases[0])
        return _Rows(inputs, first.unflatten(0, rows.reward.shape), model.target(rows).flatten(0, 1))


@dataclass(frozen=True)
class _Pass:
    """The network on rows under contexts, with the NLL's first and second derivatives by its outputs."""

    hidden: list[Tensor]
    """[rows, hidden] after each activation"""
    adjoints: list[Tensor]
    """dNLL by what each layer, and the head, puts out before its activation: [rows, out]"""
    nll: Tensor
    """[tasks]"""
    second: tuple[Tensor, Tensor, Tensor]
    """d2NLL by (mean, mean), (mean, raw) and (raw, raw), [rows, target_dim] each"""

    @staticmethod
    def at(net: _Net, rows: _Rows, context: Tensor, share: float = 1.0) -> _Pass:
        """`share` multiplies the derivatives: 1 / tasks where the loss is the tasks' mean."""
        tasks, n = rows.first.shape[:2]
        shift = (context @ net.context_weight.T).to(rows.first.dtype)
        hidden = [F.leaky_relu_((rows.first + shift[:, None]).flatten(0, 1), LEAKY_SLOPE)]
        for weight, bias in zip(net.weights[1:-1], net.biases[1:-1], strict=True):
            hidden.append(F.leaky_relu_(F.linear(hidden[-1], weight, bias), LEAKY_SLOPE))
        mean, raw = F.linear(hidden[-1], net.weights[-1], net.biases[-1]).to(rows.target.dtype).chunk(2, -1)
        low, high = net.model.config.log_var_min, net.model.config.log_var_max
        gate = torch.sigmoid(raw)
        slope = (high - low) * gate * (1.0 - gate)
        log_var = low + (high - low) * gate
        error, weights = rows.target - mean, net.model.target_weights
        precise = torch.exp(-log_var)
        pull, square = error * precise, error.square() * precise
        row_nll = ((0.5 * (log_var + square) + _HALF_LOG_TWO_PI) * weights).sum(-1)
        each = weights * (share / n)
        half = 0.5 * (1.0 - square)
        first = torch.cat([-pull * each, half * slope * each], -1)
        second = (
            precise * each,
            pull * slope * each,
            (0.5 * square * slope.square() + half * slope * (1.0 - 2.0 * gate)) * each,
        )
        return _Pass(hidden, _backward(net, hidden, first), row_nll.unflatten(0, (tasks, n)).mean(-1), second)

    def along(self, net: _Net, rows: _Rows, u: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Moving the contexts along u [tasks, context_dim]: how the hidden layers move, and how the adjoints do."""
        n, kind = rows.first.shape[1], rows.first.dtype
        moved = (u @ net.context_weight.T).to(kind).repeat_interleave(n, 0)
        tangents = [_through(moved, self.hidden[0])]
        for weight, hidden in zip(net.weights[1:-1], self.hidden[1:], strict=True):
            tangents.append(_through(F.linear(tangents[-1], weight), hidden))
        mean, raw = F.linear(tangents[-1], net.weights[-1]).to(rows.target.dtype).chunk(2, -1)
        mm, mr, rr = self.second
        out = torch.cat([mm * mean + mr * raw, mr * mean + rr * raw], -1)
        return tangents, _backward(net, self.hidden, out)


_HALF_LOG_TWO_PI = 0.9189385332046727


def _through(value: Tensor, activated: Tensor) -> Tensor:
    """Times the leaky ReLU's slope, read off its own result."""
    moved: Tensor = torch.ops.aten.leaky_relu_backward(value, activated, LEAKY_SLOPE, True)
    return moved


def _backward(net: _Net, hidden: list[Tensor], by_out: Tensor) -> list[Tensor]:
    """From the outputs' derivatives [rows, 2 target_dim] to every layer's, first to last."""
    adjoints = [by_out.to(hidden[0].dtype)]
    for weight, activated in zip(reversed(net.weights[1:]), reversed(hidden), strict=True):
        adjoints.append(_through(adjoints[-1] @ weight, activated))
    return adjoints[::-1]


class _Sums:
    """The weights' gradients, added up in the weights' own type."""

    def __init__(self, net: _Net, tasks: int) -> None:
        self.net, self.tasks = net, tasks
        layers = [*net.model.layers, net.model.head]
        self.weights = [torch.zeros_like(layer.weight) for layer in layers]
        self.biases = [torch.zeros_like(layer.bias) for layer in layers]
        self.context_weight = torch.zeros_like(net.context_weight)

    def add(self, rows: _Rows, hidden: list[Tensor], adjoints: list[Tensor], context: Tensor) -> Tensor:
        """Adjoints of what the layers put out; returns them by context, [tasks, context_dim]."""
        by_task = self._first(adjoints[0], context)
        self.weights[0] += adjoints[0].T @ rows.inputs
        self.biases[0] += by_task.sum(0)
        for i, (seen, adjoint) in enumerate(zip(hidden, adjoints[1:], strict=True), 1):
            self.weights[i] += adjoint.T @ seen
            self.biases[i] += adjoint.sum(0, dtype=self.biases[i].dtype)
        by_context: Tensor = by_task @ self.net.context_weight
        return by_context

    def pair(self, adjoints: list[Tensor], tangents: list[Tensor], u: Tensor) -> None:
        """Adjoints of how the layers move along u; there is no bias in that."""
        for i, (tangent, adjoint) in enumerate(zip(tangents, adjoints[1:], strict=True), 1):
            self.weights[i] += adjoint.T @ tangent
        self._first(adjoints[0], u)

    def _first(self, adjoint: Tensor, context: Tensor) -> Tensor:
        by_task: Tensor = adjoint.unflatten(0, (self.tasks, -1)).sum(1, dtype=context.dtype)
        self.context_weight += by_task.T @ context
        return by_task

    def gradients(self) -> dict[str, Tensor]:
        names = [*(f"layers.{i}" for i in range(len(self.weights) - 1)), "head"]
        found = {"context_layers.0.weight": self.context_weight}
        found |= {f"{name}.weight": weight for name, weight in zip(names, self.weights, strict=True)}
        return found | {f"{name}.bias": bias for name, bias in zip(names, self.biases, strict=True)}
