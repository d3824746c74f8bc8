"""Soft actor-critic: losses against values worked out by hand, and what an update moves."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from mier import sac
from mier.config import SacConfig
from mier.networks import Policy, TwinCritic
from mier.serialization import pack, same, unpack
from mier.types import EnvSpec, Transitions

CONFIG = SacConfig(hidden=(16, 16), learning_rate=1e-3)


def started(spec: EnvSpec, config: SacConfig = CONFIG, **options: float) -> sac.SacState:
    return sac.SacState.start(spec, Policy(spec, 2, config), TwinCritic(spec, 2, config), config, **options)


def batch_of(spec: EnvSpec, n: int = 8, terminated: float = 0.0) -> tuple[Transitions, torch.Tensor]:
    observation, action = torch.randn(n, 3), spec.from_unit_action(2.0 * torch.rand(n, 2) - 1.0)
    rows = Transitions(observation, action, torch.randn(n), torch.randn(n, 3), torch.full((n,), terminated))
    return rows, torch.randn(n, 2)


# Losses by hand.


def test_td_target() -> None:
    target = sac.td_target(
        reward=torch.tensor([1.0, 1.0, -2.0]),
        terminated=torch.tensor([0.0, 1.0, 0.0]),
        next_q=torch.tensor([[10.0, 10.0, 4.0], [8.0, 8.0, 6.0]]),
        next_log_prob=torch.tensor([2.0, 2.0, -1.0]),
        alpha=torch.tensor(0.5),
        discount=0.9,
    )
    # 1 + 0.9 (8 - 0.5 * 2); 1; -2 + 0.9 (4 + 0.5).
    torch.testing.assert_close(target, torch.tensor([7.3, 1.0, 2.05]))


def test_critic_loss() -> None:
    loss = sac.critic_loss(torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([2.0, 2.0]))
    # Half the mean of (1, 0), and of (4, 4).
    assert loss.item() == pytest.approx(0.25 + 2.0)


def test_actor_loss() -> None:
    loss = sac.actor_loss(torch.tensor([[3.0, -1.0], [1.0, 0.0]]), torch.tensor([-2.0, 4.0]), torch.tensor(0.5))
    # Mean of (0.5 * -2 - 1) and (0.5 * 4 + 1).
    assert loss.item() == pytest.approx((-2.0 + 3.0) / 2)


def test_temperature_loss_and_its_sign() -> None:
    log_alpha = torch.tensor(math.log(0.2), requires_grad=True)
    loss = sac.temperature_loss(log_alpha, torch.tensor([0.5, 1.5]), target_entropy=-3.0)
    assert loss.item() == pytest.approx(-math.log(0.2) * (1.0 - 3.0))
    (gradient,) = torch.autograd.grad(loss, log_alpha)
    # Entropy -1 is above the target of -3: descent must lower the temperature.
    assert gradient.item() == pytest.approx(2.0)


# What an update does.


def test_the_critic_loss_of_an_update_is_the_formula(reward_spec: EnvSpec) -> None:
    config = SacConfig(hidden=(16, 16), discount=0.8, reward_scale=3.0)
    state = started(reward_spec, config, log_alpha=-0.7)
    (rows, context), noise = batch_of(reward_spec), torch.randn(8, 2)
    rows = rows._replace(terminated=torch.tensor([0.0, 1.0] * 4))
    with torch.no_grad():
        for parameter in state.target_critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # a target that is not the critic
        action, log_prob = state.policy.sample(rows.next_observation, context, noise)
        next_q = state.target_critic(rows.next_observation, action, context)
        target = 3.0 * rows.reward + 0.8 * (1.0 - rows.terminated) * (
            torch.minimum(next_q[0], next_q[1]) - math.exp(-0.7) * log_prob
        )
        q = state.critic(rows.observation, reward_spec.to_unit_action(rows.action), context)
        expected = 0.5 * ((q[0] - target) ** 2).mean() + 0.5 * ((q[1] - target) ** 2).mean()
    loss, q_mean = sac.update_critic(state, rows, context, noise, 0.005)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(q_mean, q.mean())


@pytest.mark.parametrize("terminated", [0.0, 1.0])
def test_only_terminations_stop_the_bootstrap(reward_spec: EnvSpec, terminated: float) -> None:
    (rows, context), noise = batch_of(reward_spec, terminated=terminated), torch.randn(8, 2)
    elsewhere = rows._replace(next_observation=rows.next_observation + 5.0)
    state = started(reward_spec)
    losses = [
        sac.update_critic(copy.deepcopy(state), each, context, noise, 0.005)[0].item() for each in (rows, elsewhere)
    ]
    assert (losses[0] == losses[1]) is (terminated == 1.0)


def test_the_target_moves_by_its_rate(reward_spec: EnvSpec) -> None:
    state = started(reward_spec)
    before = [p.clone() for p in state.target_critic.parameters()]
    sac.update_critic(state, *batch_of(reward_spec), torch.randn(8, 2), 0.25)
    for target, old, new in zip(state.target_critic.parameters(), before, state.critic.parameters(), strict=True):
        torch.testing.assert_close(target, old + 0.25 * (new.detach() - old))
        assert not torch.equal(target, old)


def test_a_critic_update_moves_the_critic_alone(reward_spec: EnvSpec) -> None:
    state = started(reward_spec)
    critic, policy = copy.deepcopy(state.critic.state_dict()), copy.deepcopy(state.policy.state_dict())
    sac.update_critic(state, *batch_of(reward_spec), torch.randn(8, 2), 0.005)
    assert same(dict(state.policy.state_dict()), dict(policy))
    assert not same(dict(state.critic.state_dict()), dict(critic))
    assert state.log_alpha.item() == 0.0
    assert all(p.grad is None for p in [*state.policy.parameters(), *state.target_critic.parameters()])


def test_an_actor_update_moves_policy_and_temperature_alone(reward_spec: EnvSpec) -> None:
    state = started(reward_spec)
    critic, policy = copy.deepcopy(state.critic.state_dict()), copy.deepcopy(state.policy.state_dict())
    rows, context = batch_of(reward_spec)
    noise = torch.randn(8, 2)
    action, log_prob = state.policy.sample(rows.observation, context, noise)
    q = state.critic(rows.observation, action, context)
    loss, entropy = sac.update_actor(state, rows, context, noise)
    torch.testing.assert_close(loss, (log_prob - torch.minimum(q[0], q[1])).mean().detach())
    torch.testing.assert_close(entropy, -log_prob.mean().detach())
    assert same(dict(state.critic.state_dict()), dict(critic))
    assert not same(dict(state.policy.state_dict()), dict(policy))
    assert all(p.requires_grad and p.grad is None for p in state.critic.parameters())
    # Entropy above the target of -1 lowers the temperature, by Adam's first step of one learning rate.
    assert (entropy > -1.0) == (state.log_alpha < 0.0)
    assert abs(state.log_alpha.item()) == pytest.approx(1e-3, rel=1e-3)


def test_the_policy_steps_uphill_in_q(reward_spec: EnvSpec) -> None:
    state = started(reward_spec, log_alpha=-20.0)
    rows, context = batch_of(reward_spec, 64)
    noise = torch.randn(64, 2)

    def value() -> float:
        with torch.no_grad():
            action = state.policy(rows.observation, context, noise)
            q: torch.Tensor = state.critic(rows.observation, action, context)
            return q.min(0).values.mean().item()

    before = value()
    for _ in range(20):
        sac.update_actor(state, rows, context, noise)
    assert value() > before + 1e-3


def test_it_learns_the_best_action_of_each_context(reward_spec: EnvSpec) -> None:
    """One-step episodes whose best unit action is the context's first entry."""
    config = SacConfig(hidden=(32, 32), learning_rate=5e-3, target_entropy=-4.0)
    state = started(reward_spec, config, log_alpha=-3.0)
    draw = torch.Generator().manual_seed(0)
    for _ in range(400):
        context = torch.randint(0, 2, (64, 1), generator=draw).float().mul(1.2).sub(0.6).expand(-1, 2)
        unit = 2.0 * torch.rand(64, 2, generator=draw) - 1.0
        rows, _ = batch_of(reward_spec, 64, terminated=1.0)
        rows = rows._replace(action=reward_spec.from_unit_action(unit), reward=-(unit - context).square().sum(-1))
        sac.update(state, rows, context, sac.SacNoise.draw(64, 2, draw))
    for best in (-0.6, 0.6):
        action = state.policy(torch.randn(50, 3), torch.full((50, 2), best), torch.zeros(50, 2))
        assert (action - best).abs().mean() < 0.15


def test_state_survives_and_goes_on_the_same(reward_spec: EnvSpec) -> None:
    state, data = started(reward_spec), [batch_of(reward_spec) for _ in range(4)]
    noise = [sac.SacNoise(torch.randn(8, 2), torch.randn(8, 2)) for _ in range(4)]
    for i in range(2):
        sac.update(state, *data[i], noise[i])
    again = started(reward_spec)
    again.load_state_dict(unpack(pack(state.state_dict())))
    results = [[sac.update(s, *data[i], noise[i]) for i in (2, 3)] for s in (state, again)]
    assert same([list(r) for r in results[0]], [list(r) for r in results[1]])
    assert pack(again.state_dict()) == pack(state.state_dict())


def test_a_fresh_state_has_targets_of_its_own_and_the_given_rate(reward_spec: EnvSpec) -> None:
    state = started(reward_spec, log_alpha=-1.5, rate=0.125)
    assert same(dict(state.target_critic.state_dict()), dict(state.critic.state_dict()))
    for a, b in zip(state.target_critic.parameters(), state.critic.parameters(), strict=True):
        assert a.data_ptr() != b.data_ptr()
        assert not a.requires_grad
    assert state.log_alpha.item() == -1.5
    for optimizer in (state.actor_optimizer, state.critic_optimizer, state.alpha_optimizer):
        assert optimizer.param_groups[0]["lr"] == 0.125
    assert started(reward_spec).actor_optimizer.param_groups[0]["lr"] == 1e-3
