"""The outer gradient, against central finite differences in float64: through gradient steps and through the solve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mier.adaptation import gradient_context, infer_context, joint_loss, meta_loss, nll
from mier.config import AdaptConfig, AdaptMethod, Conditioning, ModelConfig
from mier.networks import DynamicsModel
from mier.types import EnvSpec, Transitions

CONCAT = ModelConfig(context_dim=3, hidden=(8, 8))
FILM_GATE = ModelConfig(context_dim=4, hidden=(8, 8), conditioning=Conditioning.FILM, action_gate=True)
LINEAR_HEAD = ModelConfig(
    context_dim=3, hidden=(8, 8), conditioning=Conditioning.LINEAR_HEAD, next_observation_input=True
)
GRADIENT = AdaptConfig(learned_rate=True, learning_rate=0.1, steps=2, gradient_clip=1e3)
# Every norm is far above the clip, so the outer gradient goes through the clipping as well.
CLIPPED = AdaptConfig(learned_rate=True, learning_rate=2.0, steps=2, gradient_clip=0.05)
CLOSED = AdaptConfig(method=AdaptMethod.CLOSED_FORM)


def model_of(spec: EnvSpec, config: ModelConfig, adapt: AdaptConfig) -> DynamicsModel:
    """Float64, with a prior context away from zero and every parameter trained."""
    model = DynamicsModel(spec, config, adapt).double()
    torch.nn.init.normal_(model.prior_context, std=0.5)
    return model.requires_grad_(True)


def batches(spec: EnvSpec, tasks: int = 3, rows: int = 12) -> tuple[Transitions, Transitions]:
    """Adaptation and evaluation rows [tasks, n, dim]."""

    def batch() -> Transitions:
        observation, action, following = (
            torch.randn(tasks, rows, d, dtype=torch.float64)
            for d in (spec.observation_dim, spec.action_dim, spec.observation_dim)
        )
        reward = torch.randn(tasks, rows, dtype=torch.float64)
        return Transitions(observation, action, reward, following, torch.zeros_like(reward))

    return batch(), batch()


def analytic(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]


def directional_differences(
    model: DynamicsModel, data: tuple[Transitions, Transitions], config: AdaptConfig, gradients: dict[str, Tensor]
) -> dict[str, tuple[float, float]]:
    """For each parameter, along a random direction: (central finite difference, gradient's prediction)."""
    found, step = {}, 1e-6
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        direction /= direction.norm()
        losses = []
        for sign in (1.0, -1.0):
            parameter.data.add_(sign * step * direction)
            losses.append(meta_loss(model, *data, config)[0].item())
            parameter.data.sub_(sign * step * direction)
        found[name] = ((losses[0] - losses[1]) / (2 * step), (gradients[name] * direction).sum().item())
    return found


@pytest.mark.parametrize(
    ("model_config", "adapt_config", "dynamics"),
    [
        (CONCAT, GRADIENT, False),
        (CONCAT, GRADIENT, True),
        (FILM_GATE, GRADIENT, True),
        (FILM_GATE, CLIPPED, True),
        (LINEAR_HEAD, CLOSED, False),
    ],
    ids=["concat-reward", "concat-dynamics", "film-gate", "film-gate-clipped", "closed-form"],
)
def test_meta_gradient_equals_finite_differences(
    reward_spec: EnvSpec,
    dynamics_spec: EnvSpec,
    model_config: ModelConfig,
    adapt_config: AdaptConfig,
    dynamics: bool,
) -> None:
    spec = dynamics_spec if dynamics else reward_spec
    model, data = model_of(spec, model_config, adapt_config), batches(spec)
    names, parameters = zip(*model.named_parameters(), strict=True)
    loss = meta_loss(model, *data, adapt_config)[0]
    gradients = dict(zip(names, analytic(loss, list(parameters)), strict=True))
    for name, (numeric, predicted) in directional_differences(model, data, adapt_config, gradients).items():
        assert predicted == pytest.approx(numeric, rel=1e-5, abs=1e-8), name
    # The comparison above means something only where there is a gradient.
    quiet = {"inner_log_rate"} if adapt_config.method is AdaptMethod.CLOSED_FORM else set()
    assert {name for name, g in gradients.items() if g.norm() < 1e-6} == quiet


@pytest.mark.parametrize("model_config", [CONCAT, FILM_GATE], ids=["concat", "film-gate"])
def test_a_first_order_gradient_would_not_pass(dynamics_spec: EnvSpec, model_config: ModelConfig) -> None:
    model, data = model_of(dynamics_spec, model_config, GRADIENT), batches(dynamics_spec)
    parameters = [p for name, p in model.named_parameters() if name != "inner_log_rate"]
    exact = analytic(meta_loss(model, *data, GRADIENT)[0], parameters)
    moved = gradient_context(model, data[0], GRADIENT, create_graph=False)
    # First order: the steps are constants, the context still starts at the trained prior.
    context = model.prior_context + (moved - model.prior_context).detach()
    penalty = GRADIENT.context_penalty * context.square().sum(-1).mean()
    detached = analytic(nll(model, data[1], context).mean() + penalty, parameters)
    difference = torch.stack([(a - b).norm() for a, b in zip(exact, detached, strict=True)]).norm()
    assert difference > 0.01 * torch.stack([a.norm() for a in exact]).norm()


def test_the_penalty_counts_the_adapted_context(reward_spec: EnvSpec) -> None:
    config = AdaptConfig(context_penalty=0.3)
    model, data = model_of(reward_spec, CONCAT, config), batches(reward_spec)
    loss, metrics, context = meta_loss(model, *data, config)
    expected = nll(model, data[1], context).mean() + 0.3 * context.square().sum(-1).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["context_square"], context.square().sum(-1).mean())
    assert not context.requires_grad


@pytest.mark.parametrize("create_graph", [False, True])
def test_adaptation_leaves_no_gradient_on_the_weights(reward_spec: EnvSpec, create_graph: bool) -> None:
    model, data = model_of(reward_spec, CONCAT, GRADIENT), batches(reward_spec)
    context = gradient_context(model, data[0], GRADIENT, create_graph=create_graph)
    assert context.requires_grad is create_graph
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("config", [GRADIENT, replace(CLIPPED, context_penalty=0.3)], ids=["plain", "clipped"])
@pytest.mark.parametrize("dynamics", [False, True])
def test_the_gradient_by_hand_is_autograds(
    reward_spec: EnvSpec, dynamics_spec: EnvSpec, config: AdaptConfig, dynamics: bool
) -> None:
    spec = dynamics_spec if dynamics else reward_spec
    model, data = model_of(spec, CONCAT, config), batches(spec)
    parameters = list(model.parameters())
    loss, _, context = meta_loss(model, *data, config)
    through = infer_context(model, data[0], config, create_graph=True)
    graph_loss, _ = joint_loss(model, data[1], through, config)
    torch.testing.assert_close(loss, graph_loss)
    torch.testing.assert_close(context, through.detach())
    for by_hand, exact in zip(analytic(loss, parameters), analytic(graph_loss, parameters), strict=True):
        torch.testing.assert_close(by_hand, exact, rtol=1e-8, atol=1e-12)


def test_the_gradient_by_hand_follows_autocast(dynamics_spec: EnvSpec) -> None:
    model = DynamicsModel(dynamics_spec, replace(CONCAT, hidden=(64, 64)), GRADIENT)
    adaptation, evaluation = (Transitions(*(field.float() for field in batch)) for batch in batches(dynamics_spec))
    exact = analytic(meta_loss(model, adaptation, evaluation, GRADIENT)[0], [model.layers[1].weight])  # type: ignore[list-item]
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        coarse = analytic(meta_loss(model, adaptation, evaluation, GRADIENT)[0], [model.layers[1].weight])  # type: ignore[list-item]
    error = (coarse[0] - exact[0]).norm() / exact[0].norm()
    assert 1e-6 < error < 0.05


def test_no_gradient_is_worked_out_where_none_is_asked_for(reward_spec: EnvSpec) -> None:
    model, data = model_of(reward_spec, CONCAT, GRADIENT), batches(reward_spec)
    wanted = meta_loss(model, *data, GRADIENT)[0]
    frozen = meta_loss(model.requires_grad_(False), *data, GRADIENT)[0]
    torch.testing.assert_close(frozen, wanted.detach())
    assert not frozen.requires_grad
