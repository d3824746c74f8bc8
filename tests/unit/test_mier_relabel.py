"""Relabelling: what stays is untouched, what is new is the model's and the policy's, a fall is a fall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mier.checkpoint import Checkpoint
from mier.relabel import (
    RelabelBuffer,
    best_known_context,
    relabel_dynamics,
    relabel_rewards,
    relabel_rollouts,
)
from mier.types import EnvSpec, Transitions
from mier.world import World

Make = Callable[..., Transitions]


# Only the reward varies.


def test_reward_mode_changes_the_reward_alone(reward_checkpoint: Checkpoint, transitions: Make) -> None:
    agent, context = reward_checkpoint.agent, torch.tensor([1.0, -0.5, 2.0, 0.0])
    rows = transitions(reward_checkpoint.spec, 50)._replace(terminated=(torch.arange(50) % 7 == 0).float())
    before = Transitions(*(f.clone() for f in rows))
    found = relabel_rewards(agent.model, context, rows)
    for name in ("observation", "action", "next_observation", "terminated"):
        assert torch.equal(getattr(found, name), getattr(before, name)), name
    for field, kept in zip(rows, before, strict=True):
        assert torch.equal(field, kept)  # the stored rows neither
    norm = agent.model.target_norm
    expected = agent.model(rows, context).mean[:, 0] * norm.std[0] + norm.mean[0]
    assert torch.equal(found.reward, expected)
    assert not torch.allclose(found.reward, rows.reward)


def test_rewards_follow_the_context(reward_checkpoint: Checkpoint, transitions: Make) -> None:
    model, rows = reward_checkpoint.agent.model, transitions(reward_checkpoint.spec, 10)
    assert not torch.equal(
        relabel_rewards(model, torch.zeros(4), rows).reward, relabel_rewards(model, torch.ones(4), rows).reward
    )


def test_many_rows_are_relabelled_as_few_are(reward_checkpoint: Checkpoint, transitions: Make) -> None:
    model, context = reward_checkpoint.agent.model, torch.ones(4)
    rows = transitions(reward_checkpoint.spec, 8192 + 100)
    found = relabel_rewards(model, context, rows)
    assert found.size == rows.size
    for part in (slice(0, 50), slice(8150, 8250), slice(-3, None)):
        torch.testing.assert_close(found.reward[part], relabel_rewards(model, context, rows.rows(part)).reward)


# The dynamics vary.


def relabelled(checkpoint: Checkpoint, states: Tensor, policy_context: Tensor, seed: int = 1) -> Transitions:
    agent = checkpoint.agent
    world = World(agent.spec, agent.model, torch.tensor([-2.0, 0.0, 0.5, 1.0]))
    return relabel_dynamics(world, agent.policy, policy_context, states, torch.Generator().manual_seed(seed))


def test_dynamics_mode_keeps_states_and_asks_policy_and_model(dynamics_checkpoint: Checkpoint) -> None:
    agent, spec = dynamics_checkpoint.agent, dynamics_checkpoint.spec
    states, policy_context = torch.randn(30, 3), torch.tensor([0.5, -1.0, 0.0, 2.0])
    kept = states.clone()
    found = relabelled(dynamics_checkpoint, states, policy_context)
    assert torch.equal(found.observation, kept)
    assert torch.equal(states, kept)
    # The same draws once more: first the policy's, then the model's.
    draw = torch.Generator().manual_seed(1)
    unit = agent.policy(states, policy_context.expand(30, -1), torch.randn(30, 2, generator=draw))
    torch.testing.assert_close(found.action, spec.from_unit_action(unit))
    prediction = agent.model(found, torch.tensor([-2.0, 0.0, 0.5, 1.0]))
    sampled = prediction.mean + torch.exp(0.5 * prediction.log_var) * torch.randn(30, 4, generator=draw)
    target = sampled * agent.model.target_norm.std + agent.model.target_norm.mean
    torch.testing.assert_close(found.reward, target[:, 0])
    torch.testing.assert_close(found.next_observation, states + target[:, 1:])


def test_actions_are_the_current_policys_and_within_bounds(dynamics_checkpoint: Checkpoint) -> None:
    spec, states = dynamics_checkpoint.spec, torch.randn(200, 3)
    here = relabelled(dynamics_checkpoint, states, torch.zeros(4))
    there = relabelled(dynamics_checkpoint, states, torch.full((4,), 3.0))
    assert not torch.allclose(here.action, there.action)
    assert (here.action >= torch.tensor(spec.action_low)).all()
    assert (here.action <= torch.tensor(spec.action_high)).all()
    assert here.action[:, 1].max() > 1.0  # beyond the unit range: environment units


def test_a_relabelled_fall_is_a_termination_and_nothing_else_is(dynamics_checkpoint: Checkpoint) -> None:
    found = relabelled(dynamics_checkpoint, torch.randn(300, 3), torch.zeros(4))
    fallen = found.next_observation[:, 0].abs() > 1.5
    assert 20 < fallen.sum() < 280
    assert torch.equal(found.terminated, fallen.float())


def test_without_a_rule_nothing_terminates(dynamics_checkpoint: Checkpoint) -> None:
    agent = dynamics_checkpoint.agent
    spec = replace(agent.spec, healthy_ranges=())
    draw = torch.Generator().manual_seed(0)
    context = torch.zeros(4)
    found = relabel_dynamics(World(spec, agent.model, context), agent.policy, context, 9.0 * torch.randn(50, 3), draw)
    assert not found.terminated.any()


def test_relabelling_repeats_with_its_generator(dynamics_checkpoint: Checkpoint) -> None:
    states = torch.randn(20, 3)
    one, two, other = (relabelled(dynamics_checkpoint, states, torch.zeros(4), seed) for seed in (5, 5, 6))
    assert torch.equal(one.next_observation, two.next_observation)
    assert not torch.equal(one.next_observation, other.next_observation)


def test_rollouts_go_on_where_the_model_led_and_end_with_a_fall(dynamics_checkpoint: Checkpoint) -> None:
    agent, states, context = dynamics_checkpoint.agent, torch.randn(40, 3), torch.zeros(4)
    world = World(agent.spec, agent.model, context)
    draw = torch.Generator().manual_seed(3)
    found = relabel_rollouts(world, agent.policy, context, states, 3, draw)
    torch.testing.assert_close(found.observation[:40], states)
    start, rows = 0, 40
    for _ in range(2):
        step = found.rows(slice(start, start + rows))
        going_on = step.next_observation[step.terminated == 0.0]
        start, rows = start + rows, len(going_on)
        assert torch.equal(found.observation[start : start + rows], going_on)
    assert found.size == start + rows < 120
    # One step is the paper's relabelling.
    once = relabel_rollouts(world, agent.policy, context, states, 1, draw.manual_seed(3))
    assert torch.equal(once.next_observation, found.next_observation[:40])


# The best known behaviour.


def episodes(spec: EnvSpec, lengths: list[int], tasks: list[int]) -> RelabelBuffer:
    n = sum(lengths)
    rows = Transitions(torch.zeros(n, 3), torch.zeros(n, 2), torch.zeros(n), torch.zeros(n, 3), torch.zeros(n))
    return RelabelBuffer(rows, torch.repeat_interleave(torch.tensor(lengths)), torch.tensor(tasks))


def test_returns_are_sums_over_episodes(reward_spec: EnvSpec) -> None:
    buffer = episodes(reward_spec, [2, 1, 3], [0, 0, 1])
    assert buffer.episode_returns(torch.tensor([1.0, 2.0, -5.0, 1.0, 1.0, 1.0])).tolist() == [3.0, -5.0, 3.0]


def test_the_best_known_context_is_of_the_task_with_the_best_mean_return(reward_spec: EnvSpec) -> None:
    contexts = torch.randn(4, 3)
    # Task 1 has no episodes, task 0 the largest sum, task 3 the best single step, task 2 the best mean return.
    buffer = episodes(reward_spec, [1, 1, 1, 2, 2], [0, 0, 0, 2, 3])
    reward = torch.tensor([-2.0, -2.0, -2.0, -1.0, -0.5, 1.0, -9.0])
    assert torch.equal(best_known_context(buffer, reward, contexts), contexts[2])
    assert torch.equal(best_known_context(buffer, -reward, contexts), contexts[3])


def test_the_best_known_context_is_a_copy(reward_spec: EnvSpec) -> None:
    contexts = torch.ones(1, 3)
    best_known_context(episodes(reward_spec, [1], [0]), torch.zeros(1), contexts).zero_()
    assert (contexts == 1.0).all()
