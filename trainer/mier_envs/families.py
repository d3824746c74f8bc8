"""The task distributions of the study: which tasks train, which test, and how an environment of one is made."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from mier_envs.batched import BatchedCheetah
from mier_envs.cheetah import HORIZON_STEPS

_JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
_POSITIONS = ("rootz", "rooty", *_JOINTS)
_OBSERVATIONS = (
    *(f"{name}_position" for name in _POSITIONS),
    *(f"{name}_velocity" for name in ("rootx", *_POSITIONS)),
)


@dataclass(frozen=True)
class Task:
    """One task of a family."""

    name: str
    target: float | None
    """Target speed in m/s, where the family has one."""
    mask: tuple[float, ...] = (1.0,) * 6
    """Sign of each actuator."""


@dataclass(frozen=True)
class Family:
    """A task distribution with its training tasks and its test tasks."""

    name: str
    environment_id: str
    varies: str
    train_tasks: Callable[[int], list[Task]]
    """seed -> training tasks"""
    test_tasks: tuple[Task, ...]

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """A Gymnasium environment of this task."""
        arguments: dict[str, Any] = {"mask": task.mask} if task.target is None else {"target": task.target}
        return gymnasium.make(self.environment_id, render_mode=render_mode, **arguments)

    def batch(self, tasks: list[Task]) -> BatchedCheetah:
        """Batched physics with one row per given task."""
        targets = None if tasks[0].target is None else np.asarray([t.target for t in tasks], np.float64)
        return BatchedCheetah(np.asarray([t.mask for t in tasks]), targets)

    def spec_json(self) -> dict[str, Any]:
        """The environment's spec in the fields of the service's contract."""
        return {
            "id": self.environment_id,
            "observation_names": list(_OBSERVATIONS),
            "action_names": list(_JOINTS),
            "action_low": [-1.0] * 6,
            "action_high": [1.0] * 6,
            "dt_s": 0.05,
            "horizon_steps": HORIZON_STEPS,
            "varies": self.varies,
            "healthy_ranges": [],
        }


def _vel_task(target: float) -> Task:
    return Task(f"{target:g} m/s", float(target))


def _negated_task(joints: tuple[int, ...]) -> Task:
    mask = tuple(-1.0 if j in joints else 1.0 for j in range(6))
    return Task("negated " + "+".join(map(str, joints)), None, mask)


def _vel_tasks(seed: int, fastest: float, count: int) -> list[Task]:
    return [_vel_task(v) for v in np.random.default_rng(seed).uniform(0.0, fastest, count)]


def _negated_train(seed: int) -> list[Task]:
    """All ten ways to negate 3 of joints 0-4; the seed has nothing to choose."""
    return [_negated_task(joints) for joints in itertools.combinations(range(5), 3)]


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "cheetah-vel-ood",
            "mier/CheetahVel-v0",
            "reward",
            lambda seed: _vel_tasks(seed, 1.0, 100),
            tuple(_vel_task(v) for v in (0.5, 1.0, 1.5, 2.0, 2.5)),
        ),
        Family(
            "cheetah-vel",
            "mier/CheetahVel-v0",
            "reward",
            lambda seed: _vel_tasks(seed, 3.0, 100),
            # One test set, whatever the seed of training.
            tuple(_vel_tasks(1_000_000, 3.0, 30)),
        ),
        Family(
            "cheetah-negated",
            "mier/CheetahNegated-v0",
            "dynamics",
            _negated_train,
            tuple(_negated_task((*joints, 5)) for joints in itertools.combinations(range(5), 2)),
        ),
    )
}
