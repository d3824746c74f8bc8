"""One episode of a MuJoCo environment, acted through the service.

Evaluations start from states that are a function of the episode's index alone: every stage of every seed starts from
the same ones, so that differences between stages are paired.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class Purpose(IntEnum):
    """What an episode is for; starting states are drawn apart."""

    COLLECT = 0
    """Exploring; its transitions are submitted."""
    EVALUATE = 1
    """Deterministic; seen by nobody but the evaluation."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """An action with the version that chose it."""

    action: FloatArray
    policy_version: int


class Actor(Protocol):
    """Chooses actions."""

    def __call__(self, observation: FloatArray, episode: int, step: int, deterministic: bool) -> Chosen: ...


@dataclass(frozen=True, eq=False)
class Episode:
    """What happened, step by step."""

    observation: FloatArray
    """[n, observation_dim]"""
    action: FloatArray
    """[n, action_dim]"""
    reward: FloatArray
    """[n]"""
    next_observation: FloatArray
    """[n, observation_dim]"""
    terminated: npt.NDArray[np.bool_]
    """[n]"""
    truncated: npt.NDArray[np.bool_]
    """[n]"""
    policy_version: tuple[int, ...]
    """[n]"""
    act_s: tuple[float, ...]
    """[n] Seconds from asking for an action to having it."""

    @property
    def episode_return(self) -> float:
        return float(self.reward.sum(dtype=np.float64))


def starting_seed(seed: int, purpose: Purpose, index: int) -> int:
    """Seed of the environment's reset; `seed` matters to episodes that are collected only."""
    entropy = [int(purpose), index] if purpose is Purpose.EVALUATE else [int(purpose), index, seed]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def run_episode(
    environment: gymnasium.Env[Any, Any],
    actor: Actor,
    *,
    environment_seed: int,
    episode: int,
    deterministic: bool,
    on_step: Callable[[], None],
) -> Episode:
    """Acts until the episode ends; `on_step` is called after each step."""
    observation, _ = environment.reset(seed=environment_seed)
    rows: list[tuple[FloatArray, FloatArray, float, FloatArray, bool, bool]] = []
    versions: list[int] = []
    act_s: list[float] = []
    ended = False
    while not ended:
        asked = time.perf_counter()
        chosen = actor(observation, episode, len(rows), deterministic)
        act_s.append(time.perf_counter() - asked)
        following, reward, terminated, truncated, _ = environment.step(chosen.action)
        rows.append((observation, chosen.action, float(reward), following, bool(terminated), bool(truncated)))
        versions.append(chosen.policy_version)
        observation, ended = following, bool(terminated or truncated)
        on_step()
    before, action, rewards, after, falls, ends = zip(*rows, strict=True)
    return Episode(
        observation=np.stack(before),
        action=np.stack(action),
        reward=np.array(rewards, np.float32),
        next_observation=np.stack(after),
        terminated=np.array(falls),
        truncated=np.array(ends),
        policy_version=tuple(versions),
        act_s=tuple(act_s),
    )
