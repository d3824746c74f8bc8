"""Stored experience, relabelled for a new task (paper, section 4.3).

Only the reward varies:  (s, a, s') stay as they were lived, r comes from the adapted model.
The dynamics vary:       s stays, a is drawn anew from the current policy, (r, s') come from the adapted model,
                         and the environment's own rule says whether s' is a fall.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mier.networks import DynamicsModel, Policy
from mier.types import EnvSpec, Transitions
from mier.world import World

_CHUNK_ROWS = 8192
_ACTION_SLACK = 0.25
"""Gains are estimates: an action so little out of bounds may have been at them."""


@dataclass(frozen=True)
class RelabelBuffer:
    """Whole episodes of the training tasks, flat: row i is of episode `episode[i]`, and that of `task[episode[i]]`."""

    transitions: Transitions
    """[rows, dim]"""
    episode: Tensor
    """int64 [rows], not decreasing"""
    task: Tensor
    """int64 [episodes]: index into the training tasks"""

    @property
    def size(self) -> int:
        return self.transitions.size

    def episode_returns(self, reward: Tensor) -> Tensor:
        """Sum of a reward [rows] over each episode -> [episodes]."""
        return torch.zeros(len(self.task)).index_add_(0, self.episode, reward)


@torch.no_grad()
def relabel_rewards(model: DynamicsModel, context: Tensor, transitions: Transitions) -> Transitions:
    """Rows [n, dim] with the expected reward of the task that `context` [context_dim] stands for."""
    parts = [model.target_norm.inverse(model(chunk, context).mean)[..., 0] for chunk in _chunks(transitions)]
    return transitions._replace(reward=torch.cat(parts))


@torch.no_grad()
def relabel_dynamics(
    world: World, policy: Policy, policy_context: Tensor, observation: Tensor, generator: torch.Generator
) -> Transitions:
    """States [n, observation_dim] with new actions, rewards and next states under the adapted model.

    Next state and reward are drawn from the model's Gaussian, as in the paper; the action from the policy.
    """
    parts, spec = [], world.spec
    for states in observation.split(_CHUNK_ROWS):
        noise = torch.randn(len(states), spec.action_dim, generator=generator)
        action = spec.from_unit_action(policy(states, policy_context.expand(len(states), -1), noise))
        reward, following = world.step(states, action, generator)
        parts.append(Transitions(states, action, reward, following, spec.terminated(following)))
    return Transitions.concatenate(parts)


def relabel_rollouts(
    world: World, policy: Policy, policy_context: Tensor, observation: Tensor, steps: int, generator: torch.Generator
) -> Transitions:
    """`relabel_dynamics` from states [n, observation_dim] on, `steps` times: [at most n * steps, dim].

    Stored states are the training tasks'; those that follow are where this policy leads in the new task's world
    (short model rollouts: Janner et al. 2019, "When to trust your model"). A rollout ends where its state falls.
    """
    parts = []
    for _ in range(steps):
        rows = relabel_dynamics(world, policy, policy_context, observation, generator)
        parts.append(rows)
        observation = rows.next_observation[rows.terminated == 0.0]
    return Transitions.concatenate(parts)


@torch.no_grad()
def relabel_actions(spec: EnvSpec, buffer: RelabelBuffer, training_contexts: Tensor, context: Tensor) -> Transitions:
    """Stored transitions as they were lived, with the actions that would have led to them on the new task.

    Where tasks differ in their actuators' gains g = 1 + z (`ModelConfig.action_gate`), action a of a task with gains
    g_i did what a g_i / g does under the new ones. No model has a say in it, so it is exact as far as the gains are.
    Transitions that the new actuators could not have made (an action out of bounds) are left out.
    """
    gains, new = 1.0 + training_contexts[:, : spec.action_dim], 1.0 + context[: spec.action_dim]
    asked = spec.to_unit_action(buffer.transitions.action) * (gains / new)[buffer.task[buffer.episode]]
    possible = asked.abs().amax(-1) <= 1.0 + _ACTION_SLACK
    rows = buffer.transitions._replace(action=spec.from_unit_action(asked.clamp(-1.0, 1.0)))
    return rows.rows(possible)


def best_known_context(buffer: RelabelBuffer, relabelled_reward: Tensor, training_contexts: Tensor) -> Tensor:
    """Context of the training task whose stored episodes score best on the new task: [context_dim].

    Fine-tuning from the out-of-distribution context itself was seen to gain nothing: the policy is saturated there
    and the critic off by the whole reward shift.
    """
    returns = buffer.episode_returns(relabelled_reward)
    tasks = int(buffer.task.max()) + 1
    total = torch.zeros(tasks).index_add_(0, buffer.task, returns)
    count = torch.zeros(tasks).index_add_(0, buffer.task, torch.ones_like(returns))
    mean = torch.where(count > 0, total / count.clamp_min(1.0), -torch.inf)
    return training_contexts[int(mean.argmax())].clone()


def _chunks(transitions: Transitions) -> list[Transitions]:
    return [transitions.rows(slice(i, i + _CHUNK_ROWS)) for i in range(0, transitions.size, _CHUNK_ROWS)]
