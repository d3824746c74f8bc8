"""The study's own families: target speeds, and negated joints, on one cheetah."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from mier_envs.batched import BatchedCheetah
from mier_envs.families import Family, Task, register

JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
_POSITIONS = ("rootz", "rooty", *JOINTS)
OBSERVATIONS = (
    *(f"{name}_position" for name in _POSITIONS),
    *(f"{name}_velocity" for name in ("rootx", *_POSITIONS)),
)


def vel_task(target: float) -> Task:
    """Run at `target` m/s."""
    return Task(f"{target:g} m/s", {"target": float(target)})


def negated_task(joints: tuple[int, ...]) -> Task:
    """Run forward with these joints answering the wrong way round."""
    mask = tuple(-1.0 if j in joints else 1.0 for j in range(len(JOINTS)))
    return Task("negated " + "+".join(map(str, joints)), {"mask": mask})


def mask_of(task: Task) -> tuple[float, ...]:
    """Sign of each actuator."""
    mask: tuple[float, ...] = task.arguments.get("mask", (1.0,) * len(JOINTS))
    return mask


def batched_cheetahs(tasks: list[Task]) -> BatchedCheetah:
    """One row per task; all with a target speed, or none."""
    targets = [t.target for t in tasks if t.target is not None]
    return BatchedCheetah(np.asarray([mask_of(t) for t in tasks]), np.asarray(targets) if targets else None)


def _vel_tasks(seed: int, fastest: float, count: int) -> list[Task]:
    return [vel_task(v) for v in np.random.default_rng(seed).uniform(0.0, fastest, count)]


def _negated_train(seed: int) -> list[Task]:
    """All ten ways to negate 3 of joints 0-4; the seed has nothing to choose."""
    return [negated_task(joints) for joints in itertools.combinations(range(5), 3)]


_VEL = Family(
    "cheetah-vel-ood",
    "mier/CheetahVel-v0",
    "reward",
    lambda seed: _vel_tasks(seed, 1.0, 100),
    tuple(vel_task(v) for v in (0.5, 1.0, 1.5, 2.0, 2.5)),
    OBSERVATIONS,
    JOINTS,
    calibration_tasks=tuple(vel_task(v) for v in (0.3, 0.8, 1.2, 1.7, 2.2, 2.7)),
    ood_tasks=tuple(vel_task(v) for v in (1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0)),
    batched=batched_cheetahs,
)
register(_VEL)
register(
    replace(
        _VEL,
        name="cheetah-vel",
        train_tasks=lambda seed: _vel_tasks(seed, 3.0, 100),
        ood_tasks=tuple(vel_task(v) for v in (3.3, 3.6, 4.0, 5.0)),
        # One test set, whatever the seed of training.
        test_tasks=tuple(_vel_tasks(1_000_000, 3.0, 30)),
    )
)
register(
    replace(
        _VEL,
        name="cheetah-negated",
        environment_id="mier/CheetahNegated-v0",
        varies="dynamics",
        train_tasks=_negated_train,
        test_tasks=tuple(negated_task((*joints, 5)) for joints in itertools.combinations(range(5), 2)),
        calibration_tasks=tuple(
            negated_task(joints) for joints in ((0, 1, 2), (1, 3, 4), (5,), (0, 5), (2, 5), (4, 5))
        ),
        ood_tasks=tuple(negated_task(joints) for joints in ((5,), (0, 5), (0, 1, 5), (2, 4, 5), (0, 1, 3, 5))),
    )
)
