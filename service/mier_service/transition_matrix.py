"""Transitions as one float32 matrix: what the binary HTTP body carries and what the store keeps.

column:  0 .. o-1       o .. o+a-1   o+a      o+a+1 .. 2o+a      2o+a+1       2o+a+2
         observation    action       reward   next_observation   terminated   truncated
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mier.types import Transitions

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowLayout:
    """Where each field is, for given sizes."""

    observation_dim: int
    action_dim: int

    @property
    def width(self) -> int:
        return 2 * self.observation_dim + self.action_dim + 3

    @property
    def _edges(self) -> list[int]:
        o, a = self.observation_dim, self.action_dim
        return [o, o + a, o + a + 1, 2 * o + a + 1, 2 * o + a + 2]

    def join(
        self,
        observation: FloatArray,
        action: FloatArray,
        reward: FloatArray,
        next_observation: FloatArray,
        terminated: FloatArray,
        truncated: FloatArray,
    ) -> FloatArray:
        """[n, o], [n, a], [n], [n, o], [n], [n] -> [n, width]"""
        columns = [observation, action, reward[:, None], next_observation, terminated[:, None], truncated[:, None]]
        return np.concatenate(columns, axis=1).astype(np.float32)

    def split(self, rows: FloatArray) -> list[FloatArray]:
        """[n, width] -> observation, action, reward [n, 1], next_observation, terminated, truncated."""
        return np.split(rows, self._edges, axis=1)

    def transitions(self, rows: FloatArray) -> Transitions:
        """[n, width] -> what the numeric core takes."""
        observation, action, reward, next_observation, terminated, _ = (
            torch.from_numpy(np.ascontiguousarray(part)) for part in self.split(rows)
        )
        return Transitions(observation, action, reward[:, 0], next_observation, terminated[:, 0])


@dataclass(frozen=True)
class TransitionBatch:
    """Consecutive steps of one episode, checked."""

    episode: int
    first_step: int
    rows: FloatArray
    """[n, width]"""
    policy_version: npt.NDArray[np.int64]
    """[n]: the version that chose each action; 0: none did."""

    @property
    def count(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> TransitionBatch:
        """Rows start..stop-1."""
        return TransitionBatch(
            self.episode, self.first_step + start, self.rows[start:stop], self.policy_version[start:stop]
        )
