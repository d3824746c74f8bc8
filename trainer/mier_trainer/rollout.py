"""Batched collection of episodes under (policy, context)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mier.networks import Policy
from mier.types import EnvSpec, Transitions
from mier_envs.families import Family, Task


class Episodes(NamedTuple):
    """Episodes side by side; one that ended in a fall is padded to the horizon."""

    transitions: Transitions
    """[rows, horizon, dim]"""
    length: Tensor
    """int64 [rows], on the CPU: steps before the padding"""

    @property
    def steps(self) -> int:
        """Environment steps in all."""
        return int(self.length.sum())

    def returns(self) -> Tensor:
        """[rows], episode returns."""
        return self.transitions.reward.sum(-1)

    def rows(self, index: Tensor | slice) -> Episodes:
        return Episodes(self.transitions.rows(index), self.length[index])

    def flat(self) -> Transitions:
        """[steps, dim], episode after episode, without padding."""
        horizon = self.transitions.reward.shape[1]
        lived = (torch.arange(horizon) < self.length[:, None]).flatten()
        whole = flatten_episodes(self.transitions)
        return whole if bool(lived.all()) else whole.rows(lived.to(whole.reward.device))


@torch.no_grad()
def collect(
    family: Family,
    tasks: list[Task],
    policy: Policy,
    contexts: Tensor,
    *,
    rng: np.random.Generator,
    generator: torch.Generator | None,
) -> Episodes:
    """One episode per row, all rows in step, on the contexts' device.

    Args:
        tasks: one per row.
        contexts: [rows, context_dim], what the policy is conditioned on.
        rng: draws the initial states.
        generator: draws the exploration noise; None acts deterministically.
    """
    env, horizon = family.batch(tasks), family.horizon_steps
    spec, device = EnvSpec.from_json(family.spec_json()), contexts.device
    observation = torch.from_numpy(env.reset(rng))
    observations, actions, rewards, falls = [observation], [], [], []
    noise = torch.zeros(horizon, len(tasks), policy.head.out_features // 2)
    if generator is not None:
        noise.normal_(generator=generator)
    for step in range(horizon):
        unit = policy(observation.to(device), contexts, noise[step].to(device)).cpu()
        action = spec.from_unit_action(unit)
        next_observation, reward, fallen = env.step(action.numpy())
        observation = torch.from_numpy(next_observation)
        observations.append(observation)
        actions.append(action)
        rewards.append(torch.from_numpy(reward))
        falls.append(torch.from_numpy(fallen))
    seen, fallen_by = torch.stack(observations, 1), torch.stack(falls, 1)
    length = horizon - (fallen_by > 0.0).sum(1) + (fallen_by[:, -1] > 0.0)
    terminated = fallen_by.clone()
    terminated[:, 1:] -= fallen_by[:, :-1]
    transitions = Transitions(seen[:, :-1], torch.stack(actions, 1), torch.stack(rewards, 1), seen[:, 1:], terminated)
    return Episodes(transitions.to(device), length)


def flatten_episodes(episodes: Transitions) -> Transitions:
    """[rows, n, dim] -> [rows * n, dim]."""
    return Transitions(*(field.flatten(0, 1) for field in episodes))
