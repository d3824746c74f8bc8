"""Task distributions: which tasks train, which test, and how an environment of one is made.

A family of your own is one `register` call in a module of yours (docs/tutorials/your-environment.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gymnasium

from mier_envs.batch import Batch, EnvironmentBatch


@dataclass(frozen=True)
class Task:
    """One task of a family."""

    name: str
    arguments: Mapping[str, Any] = field(hash=False)
    """What the environment is made with: what tells this task from the others."""

    @property
    def target(self) -> float | None:
        """Target speed in m/s, where the family has one."""
        return self.arguments.get("target")


@dataclass(frozen=True)
class Family:
    """A task distribution with its training tasks and its test tasks.

    The environment's observation and action spaces are flat boxes, and it is registered with `max_episode_steps`.
    """

    name: str
    environment_id: str
    varies: str
    """'reward' where tasks differ in the reward alone, else 'dynamics'."""
    train_tasks: Callable[[int], list[Task]]
    """seed -> training tasks"""
    test_tasks: tuple[Task, ...]
    observation_names: tuple[str, ...] = ()
    """In the order of the observation; empty: numbered."""
    action_names: tuple[str, ...] = ()
    healthy_ranges: tuple[tuple[int, float, float], ...] = ()
    """(observation entry, low, high): outside is a fall, which ends an episode. What the model needs to know of it."""
    calibration_tasks: tuple[Task, ...] = ()
    """What a checkpoint's knowledge of its own errors is measured on: some like the training tasks, some beyond, none a
    test task. Empty: training tasks of another seed."""
    ood_tasks: tuple[Task, ...] = ()
    """Tasks beyond the training distribution, near and far: what the out-of-distribution score is checked on."""
    batched: Callable[[list[Task]], Batch] | None = None
    """Many environments in one call, equal to single ones; None: one after the other."""

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """A Gymnasium environment of this task."""
        return gymnasium.make(self.environment_id, render_mode=render_mode, **task.arguments)

    def batch(self, tasks: list[Task]) -> Batch:
        """One row per given task."""
        if self.batched is not None:
            return self.batched(tasks)
        return EnvironmentBatch([self.make(task) for task in tasks])

    @property
    def horizon_steps(self) -> int:
        return int(self._spec["horizon_steps"])

    def spec_json(self) -> dict[str, Any]:
        """The environment's spec in the fields of the service's contract, read off the environment itself."""
        return dict(self._spec)

    @cached_property
    def _spec(self) -> dict[str, Any]:
        env = self.make(self.test_tasks[0])
        seen, acted = env.observation_space, env.action_space
        if not (isinstance(seen, gymnasium.spaces.Box) and isinstance(acted, gymnasium.spaces.Box)):
            raise ValueError(f"{self.environment_id}: expected Box spaces, came {seen} and {acted}; wrap it")
        if len(seen.shape) != 1 or len(acted.shape) != 1:
            raise ValueError(
                f"{self.environment_id}: expected flat spaces, came shapes {seen.shape} and {acted.shape}; "
                "wrap it in gymnasium.wrappers.FlattenObservation"
            )
        horizon = env.spec.max_episode_steps if env.spec else None
        if horizon is None:
            raise ValueError(f"{self.environment_id}: expected max_episode_steps in its registration, came none")
        names = self.observation_names or tuple(f"observation_{i}" for i in range(seen.shape[0]))
        env.close()
        return {
            "id": self.environment_id,
            "observation_names": list(names),
            "action_names": list(self.action_names or (f"action_{i}" for i in range(acted.shape[0]))),
            "action_low": [float(a) for a in acted.low],
            "action_high": [float(a) for a in acted.high],
            "dt_s": _control_period_s(env),
            "horizon_steps": horizon,
            "varies": self.varies,
            "healthy_ranges": [{"index": i, "low": low, "high": high} for i, low, high in self.healthy_ranges],
        }


def _control_period_s(env: gymnasium.Env[Any, Any]) -> float:
    """MuJoCo environments know it; others say how many frames make a second."""
    dt = getattr(env.unwrapped, "dt", None)
    return float(dt) if dt is not None else 1.0 / float(env.metadata.get("render_fps") or 30)


FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Make a family known by its name.

    Raises:
        ValueError: another family has that name.
    """
    if FAMILIES.setdefault(family.name, family) is not family:
        raise ValueError(f"a family named '{family.name}' is registered already; choose another name")
    return family
