"""What acts: `act(observation) -> action` and `reset()`, the same by the service (`RemotePolicy`) and on the robot
itself (`EdgePolicy`). Both also have the `predict` that loops written for Stable-Baselines3 call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from mier_client.values import FloatArray

State = TypeVar("State")


class Policy(Protocol):
    """Chooses actions, step by step."""

    def act(self, observation: npt.ArrayLike) -> FloatArray:
        """observation [observation_dim] -> action [action_dim] in environment units."""

    def reset(self) -> None:
        """Begin the next episode, at step 0."""


class Predicting(ABC):
    """Counts episodes and steps, and predicts as Stable-Baselines3's models do."""

    def __init__(self, episode: int) -> None:
        self.episode, self.step = episode, 0
        self._rows: list[tuple[int, int]] = []

    @abstractmethod
    def act(self, observation: npt.ArrayLike) -> FloatArray:
        """As `Policy.act`."""

    @abstractmethod
    def act_at(self, observation: npt.ArrayLike, episode: int, step: int, deterministic: bool) -> FloatArray:
        """The action for an observation [observation_dim] at that step of that episode, without counting it."""

    def reset(self) -> None:
        """Begin the next episode, at step 0."""
        self.episode, self.step = self.episode + 1, 0

    def predict(
        self,
        observation: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        state: State | None = None,
        episode_start: npt.ArrayLike | None = None,
        deterministic: bool = False,
    ) -> tuple[FloatArray, State | None]:
        """As a Stable-Baselines3 model's: observation [observation_dim] -> action [action_dim], or [n, observation_dim]
        -> [n, action_dim]; `state` is handed back as it came, since nothing here is recurrent.

        `episode_start` (a flag, or [n]) says whose episode begins with this observation. Of several rows each is an
        episode of its own, with a number of its own; exploration noise is a function of that number and the step.
        """
        if isinstance(observation, Mapping):
            raise ValueError("expected an observation as one array, came a dict: wrap in FlattenObservation")
        rows = np.asarray(observation)
        if rows.ndim == 1:
            return self._predict_one(rows, _flags(episode_start, 1)[0], deterministic), state
        if rows.ndim != 2:
            raise ValueError(
                f"expected an observation [observation_dim] or [n, observation_dim], came {list(rows.shape)}"
            )
        starts = _flags(episode_start, len(rows))
        if len(rows) == 1:
            return self._predict_one(rows[0], starts[0], deterministic)[None], state
        return np.stack([self._predict_row(i, rows, starts, deterministic) for i in range(len(rows))]), state

    def _predict_one(self, observation: npt.NDArray[np.generic], starts: bool, deterministic: bool) -> FloatArray:
        if starts and self.step:
            self.reset()
        action = self.act_at(observation, self.episode, self.step, deterministic)
        self.step += 1
        return action

    def _predict_row(
        self, index: int, rows: npt.NDArray[np.generic], starts: list[bool], deterministic: bool
    ) -> FloatArray:
        if index == 0 and len(self._rows) != len(rows):
            self._rows = [(self._next_episode(), 0) for _ in rows]
        episode, step = self._rows[index]
        if starts[index] and step:
            episode, step = self._next_episode(), 0
        action = self.act_at(rows[index], episode, step, deterministic)
        self._rows[index] = (episode, step + 1)
        return action

    def _next_episode(self) -> int:
        """A number that no row has had; `self.episode` is the next one that is free."""
        self.episode += 1
        return self.episode - 1


def _flags(episode_start: npt.ArrayLike | None, count: int) -> list[bool]:
    if episode_start is None:
        return [False] * count
    flags = np.atleast_1d(np.asarray(episode_start, np.bool_))
    if flags.shape != (count,):
        raise ValueError(f"episode_start: expected {count} flags, came {list(flags.shape)}")
    return [bool(flag) for flag in flags]
