"""Negating an actuator in the context negates its action, and nothing else of policy, critic and model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mier.actuator_frame import actuator_signs, unsigned_context
from mier.config import AdaptConfig, Configuration, FineTuneConfig, ModelConfig, SacConfig
from mier.networks import DynamicsModel, Policy, TwinCritic
from mier.relabel import RelabelBuffer, relabel_actions
from mier.types import EnvSpec, Transitions

SAC = SacConfig(hidden=(8, 8), actuator_frame=True)
# Two actuators, then one entry that says something else. The second actuator is negated.
CONTEXT = torch.tensor([[0.2, -1.7, 0.4]])
NEGATED = torch.tensor([[-2.2, -1.7, 0.4]])
FLIP = torch.tensor([-1.0, 1.0])


def test_gains_split_into_signs_and_sizes() -> None:
    torch.testing.assert_close(actuator_signs(CONTEXT, 2), torch.tensor([[1.0, -1.0]]))
    torch.testing.assert_close(unsigned_context(CONTEXT, 2), torch.tensor([[0.2, -0.3, 0.4]]))
    torch.testing.assert_close(actuator_signs(torch.full((1, 3), -1.0), 2), torch.ones(1, 2))  # a dead actuator


def test_a_negated_actuator_gets_the_negated_action(reward_spec: EnvSpec) -> None:
    policy = Policy(reward_spec, 3, SAC)
    observation, noise = torch.randn(5, 3), torch.randn(5, 2)
    plain, log_prob = policy.sample(observation, CONTEXT.expand(5, -1), noise)
    mirrored, same = policy.sample(observation, NEGATED.expand(5, -1), noise * FLIP)
    torch.testing.assert_close(mirrored, plain * FLIP)
    torch.testing.assert_close(same, log_prob)
    other = policy(observation, CONTEXT.expand(5, -1) + 0.5, noise)
    assert not torch.allclose(other, plain), "the rest of the context still counts"


def test_the_critic_values_the_negated_action_the_same(reward_spec: EnvSpec) -> None:
    critic = TwinCritic(reward_spec, 3, SAC)
    observation, action = torch.randn(5, 3), 2.0 * torch.rand(5, 2) - 1.0
    value = critic(observation, action, CONTEXT.expand(5, -1))
    torch.testing.assert_close(critic(observation, action * FLIP, NEGATED.expand(5, -1)), value)
    assert not torch.allclose(critic(observation, action, NEGATED.expand(5, -1)), value)


def test_without_free_entries_the_model_knows_gains_alone(dynamics_spec: EnvSpec) -> None:
    """The model repeats itself where gain and action are negated together, and has no other way to see a context."""
    model = DynamicsModel(dynamics_spec, ModelConfig(context_dim=2, hidden=(8,), action_gate=True), AdaptConfig())
    rows = _rows(dynamics_spec, 6)
    unit = dynamics_spec.to_unit_action(rows.action) * FLIP
    mirrored = rows._replace(action=dynamics_spec.from_unit_action(unit))
    expected = model(rows, torch.tensor([0.2, -1.7]))
    torch.testing.assert_close(model(mirrored, torch.tensor([-2.2, -1.7])).mean, expected.mean)


def test_a_frame_needs_a_gate() -> None:
    with pytest.raises(ValueError, match="actuator_frame needs action_gate"):
        Configuration(sac=SAC)
    with pytest.raises(ValueError, match="lived_share needs action_gate"):
        Configuration(finetune=FineTuneConfig(lived_share=0.5))


def test_relabelled_actions_do_on_the_new_task_what_was_lived(
    dynamics_spec: EnvSpec, relabel_buffer: Callable[[EnvSpec], RelabelBuffer]
) -> None:
    """A body that feels gain x action: under the new gains the relabelled action feels as the lived one did."""
    buffer = relabel_buffer(dynamics_spec)
    known = torch.tensor([[0.0, -2.0, 0.3], [-2.0, 0.0, 0.1], [1.0, 0.0, 0.7]])
    new = torch.tensor([-2.0, 0.5, 9.0])
    found = relabel_actions(dynamics_spec, buffer, known, new)
    gains = (1.0 + known[:, :2])[buffer.task[buffer.episode]]
    felt = dynamics_spec.to_unit_action(buffer.transitions.action) * gains
    asked = felt / (1.0 + new[:2])
    possible = (asked.abs() <= 1.25).all(-1)
    assert 0 < found.size == int(possible.sum()) < buffer.size
    torch.testing.assert_close(found.observation, buffer.transitions.observation[possible])
    torch.testing.assert_close(found.reward, buffer.transitions.reward[possible])
    torch.testing.assert_close(found.next_observation, buffer.transitions.next_observation[possible])
    unit = dynamics_spec.to_unit_action(found.action)
    torch.testing.assert_close(unit, asked[possible].clamp(-1.0, 1.0))
    inside = (asked[possible].abs() <= 1.0).all(-1)
    torch.testing.assert_close((unit * (1.0 + new[:2]))[inside], felt[possible][inside])


def _rows(spec: EnvSpec, n: int) -> Transitions:
    def state() -> Tensor:
        return torch.randn(n, spec.observation_dim)

    action = spec.from_unit_action(2.0 * torch.rand(n, spec.action_dim) - 1.0)
    return Transitions(state(), action, torch.randn(n), state(), torch.zeros(n))
