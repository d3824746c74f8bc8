"""The peers compute what ours does: the plain port in losses, gradients and adaptation, SB3 in an update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mier.adaptation import gradient_context, meta_loss, nll
from mier.config import AdaptConfig, Conditioning, ModelConfig
from mier.networks import DynamicsModel
from mier.types import EnvSpec, Transitions
from mier_bench import sb3_sac
from mier_bench.plain_port import adaptation as plain
from mier_bench.plain_port.comparison import gradient_difference
from mier_bench.plain_port.model import batch_of, port_of

PLAIN = ModelConfig(context_dim=3, hidden=(16, 16, 16))
WITH_NEXT = ModelConfig(context_dim=3, hidden=(16, 16), next_observation_input=True, log_var_min=-5.0)
GATED = ModelConfig(context_dim=2, hidden=(16, 16), action_gate=True)


def model_of(spec: EnvSpec, config: ModelConfig) -> DynamicsModel:
    model = DynamicsModel(spec, config, AdaptConfig())
    torch.nn.init.normal_(model.prior_context, std=0.5)
    model.observation_norm.std.uniform_(0.5, 2.0)
    model.target_norm.mean.normal_()
    return model


def tasks_of(rows: Transitions) -> Transitions:
    return Transitions(*(field.unflatten(0, (4, -1)) for field in rows))


@pytest.mark.parametrize(("config", "dynamics"), [(PLAIN, False), (PLAIN, True), (WITH_NEXT, False), (GATED, True)])
def test_the_plain_port_differentiates_as_ours(
    reward_spec: EnvSpec,
    dynamics_spec: EnvSpec,
    transitions: Callable[..., Transitions],
    config: ModelConfig,
    dynamics: bool,
) -> None:
    spec = dynamics_spec if dynamics else reward_spec
    model = model_of(spec, config)
    port = port_of(model)
    adaptation, evaluation = (tasks_of(transitions(spec, 64, seed)) for seed in (1, 2))
    ours = meta_loss(model, adaptation, evaluation, AdaptConfig())[0]
    theirs = plain.meta_loss(
        port, *([batch_of(model, rows.rows(i)) for i in range(4)] for rows in (adaptation, evaluation))
    )
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    assert gradient_difference(model, port) < 1e-4
    with torch.no_grad():
        port.mean.weight.grad.mul_(1.01)  # type: ignore[union-attr]
    assert gradient_difference(model, port) > 1e-3


@pytest.mark.parametrize("config", [PLAIN, GATED])
def test_the_plain_port_adapts_as_ours(
    dynamics_spec: EnvSpec, transitions: Callable[..., Transitions], config: ModelConfig
) -> None:
    model, rows = model_of(dynamics_spec, config), transitions(dynamics_spec, 100)
    port, settings = port_of(model), AdaptConfig()
    batch = batch_of(model, rows)
    torch.testing.assert_close(port.loss(batch, port.context), nll(model, rows, model.prior_context))
    theirs = plain.adapt(port, batch, plain.TEST_STEPS, training=False)
    ours = gradient_context(model, rows, settings, create_graph=False, later_steps=settings.later_steps)
    assert not torch.allclose(ours, model.prior_context, atol=1e-2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_plain_port_appends_only(reward_spec: EnvSpec) -> None:
    with pytest.raises(ValueError, match="appends the context"):
        port_of(model_of(reward_spec, ModelConfig(context_dim=3, conditioning=Conditioning.FILM)))


def test_stable_baselines_updates_as_ours(reward_spec: EnvSpec, transitions: Callable[..., Transitions]) -> None:
    # SB3 wants actions in [-1, 1].
    spec = replace(reward_spec, action_low=(-1.0, -1.0), action_high=(1.0, 1.0))
    pair = sb3_sac.start(spec, transitions(spec, 512))
    found = sb3_sac.difference_after_one_update(pair, seed=3)
    assert set(found) == {"critic loss, relative", "actor loss, relative", "gradients, relative"}
    assert all(difference < 5e-3 for difference in found.values())
