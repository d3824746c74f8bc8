"""Imagined episodes: what the model says of them, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mier.agent import Agent
from mier.checkpoint import Checkpoint
from mier.config import Configuration, ModelConfig
from mier.types import EnvSpec, Transitions, Varies
from mier.world import World, episode_starts, imagined_returns, shared_dynamics


@pytest.fixture
def steady(dynamics_spec: EnvSpec, tiny_configuration: Callable[[Varies], Configuration]) -> Agent:
    """A model that says: reward 2, and the height rises by 1 a step."""
    agent = Agent.build(dynamics_spec, tiny_configuration(Varies.DYNAMICS), training_tasks=1).freeze()
    agent.model.head.weight.zero_()
    agent.model.head.bias.copy_(torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    return agent


def imagine(agent: Agent, spec: EnvSpec, candidates: Tensor, heights: list[float], steps: int) -> Tensor:
    states = torch.zeros(len(heights), 3)
    states[:, 0] = torch.tensor(heights)
    rows = candidates.repeat_interleave(len(heights), 0)

    def act(states: Tensor) -> Tensor:
        return spec.from_unit_action(agent.policy(states, rows, torch.zeros(len(states), spec.action_dim)))

    found = imagined_returns(World(spec, agent.model, torch.zeros(4)), act, states.repeat(len(candidates), 1), steps)
    return found.view(len(candidates), len(heights)).mean(-1)


def test_imagined_returns_stop_counting_at_a_fall(steady: Agent) -> None:
    one = torch.zeros(1, 4)
    # From 0.0: 1.0, then 2.0 is a fall, whose own reward still counts. From -1.4: -0.4, 0.6, 1.6.
    assert imagine(steady, steady.spec, one, [0.0], 10).tolist() == [4.0]
    assert imagine(steady, steady.spec, one, [-1.4], 10).tolist() == [6.0]
    assert imagine(steady, steady.spec, one, [0.0, -1.4], 10).tolist() == [5.0]
    assert imagine(steady, steady.spec, one, [-1.4], 2).tolist() == [4.0]
    # From -3.2 into -2.2, a fall; that -1.2 would be healthy again does not undo it.
    assert imagine(steady, steady.spec, one, [-3.2], 10).tolist() == [2.0]
    unbounded = replace(steady.spec, healthy_ranges=())
    assert imagine(steady, unbounded, one, [0.0], 10).tolist() == [20.0]


def test_what_a_model_says_after_a_fall_does_not_matter(steady: Agent) -> None:
    # By the third step the height, and with it the reward, is beyond float32.
    steady.model.head.bias.copy_(torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    steady.model.target_norm.std[1] = 3e38
    assert imagine(steady, steady.spec, torch.zeros(1, 4), [0.0], 6).tolist() == [2.0]


def test_a_candidate_whose_imagination_blew_up_never_wins(steady: Agent) -> None:
    candidates = torch.stack([torch.zeros(4), torch.full((4,), torch.nan), torch.ones(4)])
    steady.model.head.weight[0].normal_()  # the reward now depends on state and action
    returns = imagine(steady, steady.spec, candidates, [0.0, -1.0], 5)
    assert returns[1] == -torch.inf
    assert returns[[0, 2]].isfinite().all()


def test_each_candidate_is_imagined_as_if_alone(dynamics_checkpoint: Checkpoint) -> None:
    agent, candidates, heights = dynamics_checkpoint.agent, torch.randn(3, 4), [0.1, -0.4, 0.9]
    together = imagine(agent, agent.spec, candidates, heights, 8)
    alone = torch.cat([imagine(agent, agent.spec, c[None], heights, 8) for c in candidates])
    torch.testing.assert_close(together, alone)
    assert len(set(together.tolist())) == 3


# Where only the reward varies.


def test_shared_dynamics_lead_and_the_tasks_model_rewards(reward_checkpoint: Checkpoint) -> None:
    agent, states, actions = reward_checkpoint.agent, torch.randn(5, 3), torch.rand(5, 2)
    assert agent.dynamics is not None
    context, zero = torch.randn(4), torch.zeros(5)
    reward, following = World(agent.spec, agent.model, context, agent.dynamics).step(states, actions)
    rows = Transitions(states, actions, zero, states, zero)
    moved = agent.dynamics(rows, torch.zeros(0)).mean * agent.dynamics.target_norm.std + agent.dynamics.target_norm.mean
    torch.testing.assert_close(following, states + moved[:, 1:])
    said = agent.model(rows._replace(next_observation=following), context).mean[:, 0]
    torch.testing.assert_close(reward, said * agent.model.target_norm.std[0] + agent.model.target_norm.mean[0])


def test_a_world_without_dynamics_says_what_it_lacks(
    reward_checkpoint: Checkpoint, dynamics_checkpoint: Checkpoint
) -> None:
    with pytest.raises(ValueError, match="needs the checkpoint's shared dynamics"):
        World(reward_checkpoint.spec, reward_checkpoint.agent.model, torch.zeros(4))
    with pytest.raises(ValueError, match="the task's model predicts them"):
        shared_dynamics(dynamics_checkpoint.spec, ModelConfig(context_dim=0))


def test_shared_dynamics_leave_the_other_networks_of_a_seed_as_they_were(
    reward_spec: EnvSpec, tiny_configuration: Callable[[Varies], Configuration]
) -> None:
    configuration = tiny_configuration(Varies.REWARD)
    drawn = []
    for given in (configuration, replace(configuration, dynamics=None)):
        torch.manual_seed(3)
        agent = Agent.build(reward_spec, given, training_tasks=1)
        drawn.append((agent.critic.state_dict(), torch.rand(3)))
    (with_it, next_with), (without, next_without) = drawn
    assert torch.equal(next_with, next_without)
    assert all(torch.equal(value, without[name]) for name, value in with_it.items())


def test_an_episode_starts_where_a_state_is_not_the_one_befores_next() -> None:
    states = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0], [5.0]])
    following = torch.tensor([[1.0], [2.0], [3.0], [8.0], [9.0], [6.0]])
    zero = torch.zeros(6)
    assert episode_starts(Transitions(states, states, zero, following, zero)).tolist() == [0, 3, 5]
