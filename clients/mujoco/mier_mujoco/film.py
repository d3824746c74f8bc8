"""What a film is made of: the positions of one episode, step by step, and how to see them.

A robot takes them down while it acts (`Camera`); drawing comes later and elsewhere (`video.py`), so that filming
changes neither what is measured nor how fast. No rendering here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from mier_envs.families import Task

_MEAN_OVER_S = 0.5
"""A speed that is shown is the mean over so long: within a stride it goes up and down."""


@dataclass(frozen=True, eq=False)
class Film:
    """One episode of one version."""

    policy_version: int
    positions: npt.NDArray[np.float64]
    """[n, position_dim] As MuJoCo's qpos, after each step; the first entry is the distance run, in metres."""
    dt_s: float

    @property
    def speed(self) -> npt.NDArray[np.float64]:
        """[n] In m/s, the mean over the last half second; over less at the beginning, 0 at the very first step."""
        run = self.positions[:, 0]
        now = np.arange(len(run))
        back = np.maximum(0, now - max(1, round(_MEAN_OVER_S / self.dt_s)))
        speed: npt.NDArray[np.float64] = (run - run[back]) / (np.maximum(1, now - back) * self.dt_s)
        return speed


@dataclass(frozen=True, eq=False)
class Footage:
    """What is shown side by side: the same task, from the same start, before and after."""

    task: Task
    before: Film
    after: Film
    after_name: str
    """Of the stage: context-adapted, fine-tuned."""

    def save(self, path: Path) -> None:
        """For `video.py`, in whatever process."""
        films = (self.before, self.after)
        steps = max(len(film.positions) for film in films)
        np.savez(
            path,
            target=np.nan if self.task.target is None else self.task.target,
            names=[
                f"before: v{films[0].policy_version}, unadapted",
                f"after: v{films[1].policy_version}, {self.after_name}",
            ],
            before=self.before.positions,
            after=self.after.positions,
            speeds=np.stack([_padded(film.speed, steps) for film in films]),
            dt_s=self.before.dt_s,
        )


class Camera:
    """Takes down where an environment is, when it is told."""

    def __init__(self, environment: gymnasium.Env[Any, Any]) -> None:
        self._simulator: Any = environment.unwrapped
        self._positions: list[npt.NDArray[np.float64]] = []

    def shoot(self) -> None:
        """After a step."""
        self._positions.append(np.array(self._simulator.data.qpos))

    def film(self, policy_version: int) -> Film:
        """All that was taken down."""
        return Film(policy_version, np.stack(self._positions), float(self._simulator.dt))


def _padded(values: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Where an episode ended early its last value stays."""
    return np.concatenate([values, np.full(length - len(values), values[-1])])
