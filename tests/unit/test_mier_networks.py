"""The networks: densities, clamps, the gate, both critics in one product; and normalisation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mier.config import AdaptConfig, Conditioning, ModelConfig, SacConfig
from mier.networks import DynamicsModel, Policy, TwinCritic
from mier.normalization import Normalizer
from mier.types import EnvSpec, Transitions

SAC = SacConfig(hidden=(12, 10))


def rows_of(spec: EnvSpec, *shape: int) -> Transitions:
    return Transitions(
        torch.randn(*shape, spec.observation_dim),
        torch.randn(*shape, spec.action_dim),
        torch.randn(*shape),
        torch.randn(*shape, spec.observation_dim),
        torch.zeros(*shape),
    )


# Policy


def test_log_probability_is_that_of_the_squashed_gaussian(reward_spec: EnvSpec) -> None:
    policy = Policy(reward_spec, 2, SAC).double()
    observation, context = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 2, dtype=torch.float64)
    noise = torch.randn(50, 2, dtype=torch.float64)
    action, log_prob = policy.sample(observation, context, noise)
    mean, log_std = policy.distribution(observation, context)
    # Change of variables, with the derivative of tanh taken numerically.
    raw, step = mean + log_std.exp() * noise, 1e-5
    slope = (torch.tanh(raw + step) - torch.tanh(raw - step)) / (2 * step)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(raw) - slope.log()
    torch.testing.assert_close(log_prob, expected.sum(-1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(action, torch.tanh(raw))


def test_the_density_integrates_to_one(reward_spec: EnvSpec) -> None:
    one = replace(reward_spec, action_names=("push",), action_low=(-1.0,), action_high=(1.0,))
    policy = Policy(one, 2, SAC).double()
    observation, context = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    mean, log_std = policy.distribution(observation, context)
    raw = torch.linspace(-12.0, 12.0, 20_001, dtype=torch.float64)[:, None]
    n = len(raw)
    action, log_prob = policy.sample(observation.expand(n, -1), context.expand(n, -1), (raw - mean) / log_std.exp())
    assert torch.trapezoid(log_prob.detach().exp(), action.detach()[:, 0]).item() == pytest.approx(1.0, abs=1e-3)


def test_log_probability_stays_finite_where_tanh_saturates(reward_spec: EnvSpec) -> None:
    policy = Policy(reward_spec, 2, SAC)
    with torch.no_grad():
        policy.head.bias[:2] = torch.tensor([60.0, -60.0])
    action, log_prob = policy.sample(torch.zeros(4, 3), torch.zeros(4, 2), torch.zeros(4, 2))
    assert (action.abs() == 1.0).all()
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())


def test_zero_noise_is_the_deterministic_action(reward_spec: EnvSpec) -> None:
    policy = Policy(reward_spec, 2, SAC)
    observation, context = torch.randn(5, 3), torch.randn(5, 2)
    mean, _ = policy.distribution(observation, context)
    torch.testing.assert_close(policy(observation, context, torch.zeros(5, 2)), torch.tanh(mean))
    noise = torch.randn(5, 2)
    torch.testing.assert_close(policy(observation, context, noise), policy.sample(observation, context, noise)[0])


def test_the_policy_sees_its_context(reward_spec: EnvSpec) -> None:
    policy = Policy(reward_spec, 2, SAC)
    observation, noise = torch.randn(1, 3), torch.zeros(1, 2)
    assert not torch.equal(policy(observation, torch.zeros(1, 2), noise), policy(observation, torch.ones(1, 2), noise))


# Critics


def test_the_twin_critic_is_two_separate_networks(reward_spec: EnvSpec) -> None:
    critic = TwinCritic(reward_spec, 2, SAC)
    critic.observation_norm.mean.normal_()
    critic.context_norm.std.fill_(2.0)
    observation, action, context = torch.randn(9, 3), torch.rand(9, 2), torch.randn(9, 2)
    x = torch.cat([observation - critic.observation_norm.mean, context / 2.0, action], -1)
    for which in range(2):
        h = x
        for i in range(3):
            layer = torch.nn.Linear(h.shape[-1], critic.weights[i].shape[-1])
            layer.load_state_dict({"weight": critic.weights[i][which].T, "bias": critic.biases[i][which, 0]})
            h = layer(h) if i == 2 else F.relu(layer(h))
        torch.testing.assert_close(critic(observation, action, context)[which], h[:, 0])
    q = critic(observation, action, context)
    assert q.shape == (2, 9)
    assert not torch.allclose(q[0], q[1])


def test_a_loss_of_one_critic_moves_that_one_alone(reward_spec: EnvSpec) -> None:
    critic = TwinCritic(reward_spec, 2, SAC)
    critic(torch.randn(9, 3), torch.rand(9, 2), torch.randn(9, 2))[0].sum().backward()
    for parameter in critic.parameters():
        assert parameter.grad is not None
        assert (parameter.grad[1] == 0.0).all()
    moved = critic.weights[0].grad
    assert moved is not None
    assert (moved[0] != 0.0).any()


# Model


@pytest.mark.parametrize("conditioning", list(Conditioning))
def test_shapes_and_the_fixed_range_of_the_variance(dynamics_spec: EnvSpec, conditioning: Conditioning) -> None:
    config = ModelConfig(context_dim=3, hidden=(8, 8), conditioning=conditioning, log_var_min=-4.0, log_var_max=0.25)
    model = DynamicsModel(dynamics_spec, config, AdaptConfig())
    with torch.no_grad():
        model.head.weight *= 1e4
    prediction = model(rows_of(dynamics_spec, 5, 7), torch.randn(5, 3))
    assert prediction.mean.shape == prediction.log_var.shape == (5, 7, 4)
    assert prediction.log_var.min().item() == pytest.approx(-4.0, abs=1e-3)
    assert prediction.log_var.max().item() == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("conditioning", list(Conditioning))
def test_one_context_a_task_is_the_same_context_on_each_row(dynamics_spec: EnvSpec, conditioning: Conditioning) -> None:
    gate = conditioning is Conditioning.FILM
    config = ModelConfig(context_dim=3, hidden=(8, 8), conditioning=conditioning, action_gate=gate)
    model = DynamicsModel(dynamics_spec, config, AdaptConfig())
    rows, context = rows_of(dynamics_spec, 4, 6), torch.randn(4, 3)
    together = model(rows, context).mean
    for task in range(4):
        for row in range(6):
            one = Transitions(*(f[task, row : row + 1] for f in rows))
            torch.testing.assert_close(model(one, context[task]).mean[0], together[task, row], atol=1e-6, rtol=1e-5)
    moved = model(rows, context + 0.5).mean
    assert not torch.allclose(moved, together)


def test_the_linear_head_is_linear_in_the_context_and_bounded(reward_spec: EnvSpec) -> None:
    config = ModelConfig(
        context_dim=3, hidden=(8, 8), conditioning=Conditioning.LINEAR_HEAD, next_observation_input=True
    )
    model = DynamicsModel(reward_spec, config, AdaptConfig())
    with torch.no_grad():
        model.head.weight *= 30.0
    rows, a, b = rows_of(reward_spec, 9), torch.randn(3), torch.randn(3)
    head = model.linear_head(rows)
    assert head.features.abs().max() <= 2.0
    torch.testing.assert_close(model(rows, torch.zeros(3)).mean, head.offset)
    torch.testing.assert_close(
        model(rows, a + 2.0 * b).mean - head.offset,
        model(rows, a).mean - head.offset + 2.0 * (model(rows, b).mean - head.offset),
        atol=1e-4,
        rtol=1e-4,
    )


def test_a_gate_of_minus_two_is_a_negated_actuator(dynamics_spec: EnvSpec) -> None:
    even = replace(dynamics_spec, action_low=(-1.0, -1.0), action_high=(1.0, 1.0))
    config = ModelConfig(context_dim=4, hidden=(8, 8), conditioning=Conditioning.FILM, action_gate=True)
    model = DynamicsModel(even, config, AdaptConfig())
    rows = rows_of(even, 6)
    negated = rows._replace(action=rows.action * torch.tensor([-1.0, 1.0]))
    rest = torch.tensor([0.3, -0.2])
    torch.testing.assert_close(
        model(rows, torch.cat([torch.tensor([-2.0, 0.0]), rest])).mean,
        model(negated, torch.cat([torch.zeros(2), rest])).mean,
    )


def test_the_next_observation_reaches_the_reward_model_only_where_asked(reward_spec: EnvSpec) -> None:
    rows = rows_of(reward_spec, 6)
    other = rows._replace(next_observation=rows.next_observation + 1.0)
    for asked in (False, True):
        model = DynamicsModel(
            reward_spec, ModelConfig(context_dim=3, hidden=(8,), next_observation_input=asked), AdaptConfig()
        )
        differs = not torch.equal(model(rows, torch.zeros(3)).mean, model(other, torch.zeros(3)).mean)
        assert differs is asked


def test_targets_are_normalised_reward_and_change_of_state(dynamics_spec: EnvSpec, reward_spec: EnvSpec) -> None:
    rows = rows_of(dynamics_spec, 6)
    model = DynamicsModel(dynamics_spec, ModelConfig(hidden=(8,)), AdaptConfig())
    model.target_norm.mean.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    model.target_norm.std.copy_(torch.tensor([0.5, 2.0, 1.0, 4.0]))
    target = model.target(rows)
    torch.testing.assert_close(target[:, 0], (rows.reward - 1.0) / 0.5)
    torch.testing.assert_close(target[:, 3], (rows.next_observation - rows.observation)[:, 2] / 4.0 - 1.0)
    assert DynamicsModel(reward_spec, ModelConfig(hidden=(8,)), AdaptConfig()).target(rows).shape == (6, 1)


def test_models_that_could_not_work_are_refused(reward_spec: EnvSpec, dynamics_spec: EnvSpec) -> None:
    with pytest.raises(ValueError, match="needs context_dim >= 2, came 1"):
        DynamicsModel(reward_spec, ModelConfig(context_dim=1, action_gate=True), AdaptConfig())
    with pytest.raises(ValueError, match="next_observation_input"):
        DynamicsModel(dynamics_spec, ModelConfig(next_observation_input=True), AdaptConfig())


def test_untrained_priors_and_rates_stay_out_of_training(reward_spec: EnvSpec) -> None:
    for trained in (False, True):
        model = DynamicsModel(
            reward_spec, ModelConfig(trained_prior=trained), AdaptConfig(learned_rate=trained, learning_rate=0.07)
        )
        assert model.prior_context.requires_grad is trained
        assert model.inner_log_rate.requires_grad is trained
        assert (model.prior_context == 0.0).all()
        torch.testing.assert_close(model.inner_log_rate, torch.full((2, 5), math.log(0.07)))


# Normaliser


def test_fit_centres_and_scales() -> None:
    rows = torch.tensor([[1.0, 10.0], [3.0, 10.0]])
    norm = Normalizer(2).fit(rows, minimum_std=0.5)
    torch.testing.assert_close(norm.mean, torch.tensor([2.0, 10.0]))
    torch.testing.assert_close(norm.std, torch.tensor([1.0, 0.5]))  # a constant entry does not blow up
    torch.testing.assert_close(norm(rows), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(norm.inverse(norm(rows)), rows)


def test_fit_moves_by_its_rate() -> None:
    norm = Normalizer(1).fit(torch.tensor([[2.0], [6.0]]), rate=0.25)
    torch.testing.assert_close(norm.mean, torch.tensor([1.0]))
    torch.testing.assert_close(norm.std, torch.tensor([1.25]))


def test_statistics_travel_in_the_state_and_are_not_trained() -> None:
    norm = Normalizer(2)
    assert set(norm.state_dict()) == {"mean", "std"}
    assert list(norm.parameters()) == []
