"""Batched collection of episodes under (policy, context)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mier.networks import Policy
from mier.types import Transitions
from mier_envs.families import Family, Task


@torch.no_grad()
def collect(
    family: Family,
    tasks: list[Task],
    policy: Policy,
    contexts: Tensor,
    *,
    rng: np.random.Generator,
    generator: torch.Generator | None,
) -> Transitions:
    """One episode per row, all rows in step: transitions [rows, horizon, dim] on the policy's device.

    Args:
        tasks: one per row.
        contexts: [rows, context_dim], what the policy is conditioned on.
        rng: draws the initial states.
        generator: draws the exploration noise; None acts deterministically.
    """
    env = family.batch(tasks)
    horizon = int(family.spec_json()["horizon_steps"])
    device = contexts.device
    observation = torch.from_numpy(env.reset(rng))
    observations, actions, rewards = [observation], [], []
    noise = torch.zeros(horizon, len(tasks), policy.head.out_features // 2)
    if generator is not None:
        noise.normal_(generator=generator)
    for step in range(horizon):
        action = policy(observation.to(device), contexts, noise[step].to(device)).cpu()
        next_observation, reward = env.step(action.numpy())
        observation = torch.from_numpy(next_observation)
        observations.append(observation)
        actions.append(action)
        rewards.append(torch.from_numpy(reward))
    seen = torch.stack(observations, 1)
    return Transitions(
        seen[:, :-1],
        torch.stack(actions, 1),
        torch.stack(rewards, 1),
        seen[:, 1:],
        torch.zeros(len(tasks), horizon),
    ).to(device)


def flatten_episodes(episodes: Transitions) -> Transitions:
    """[rows, horizon, dim] -> [rows * horizon, dim]."""
    return Transitions(*(field.flatten(0, 1) for field in episodes))
