"""Many environments stepped together: what the trainer collects with."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

Observations = NDArray[np.float32]
"""[rows, observation_dim]"""
Numbers = NDArray[np.float32]
"""[rows]"""


class Batch(Protocol):
    """Independent rows, one task each. An episode's time limit is the caller's to keep."""

    def reset(self, rng: np.random.Generator) -> Observations:
        """New episodes in all rows."""
        ...

    def step(self, action: NDArray[np.floating[Any]]) -> tuple[Observations, Numbers, Numbers]:
        """Actions [rows, action_dim] -> next observations, rewards, and 1.0 where a row fell; it stays as it fell."""
        ...


class EnvironmentBatch:
    """Gymnasium environments, one after the other."""

    def __init__(self, environments: list[gymnasium.Env[Any, Any]]) -> None:
        self._environments = environments
        self._last: list[Observations] = []
        self._fallen = np.zeros(len(environments), np.float32)

    def reset(self, rng: np.random.Generator) -> Observations:
        """New episodes in all rows, their seeds drawn from `rng`."""
        self._fallen[:] = 0.0
        seeds = rng.integers(2**31, size=len(self._environments))
        self._last = [
            np.asarray(env.reset(seed=int(seed))[0], np.float32)
            for env, seed in zip(self._environments, seeds, strict=True)
        ]
        return np.stack(self._last)

    def step(self, action: NDArray[np.floating[Any]]) -> tuple[Observations, Numbers, Numbers]:
        """Step every row that has not fallen."""
        rewards = np.zeros(len(self._environments), np.float32)
        for i, env in enumerate(self._environments):
            if not self._fallen[i]:
                observation, reward, terminated, _, _ = env.step(np.asarray(action[i], env.action_space.dtype))
                self._last[i] = np.asarray(observation, np.float32)
                rewards[i], self._fallen[i] = float(reward), terminated
        return np.stack(self._last), rewards, self._fallen.copy()
