"""The bundled checkpoints, and transitions of their families' tasks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from mier.checkpoint import CHECKPOINT_FILES, Checkpoint, decode
from mier.types import EnvSpec, Transitions
from mier_envs.families import FAMILIES, Task
from mier_trainer.rollout import collect

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
FAMILY_NAMES = ("cheetah-vel-ood", "cheetah-negated")


@cache
def checkpoint(name: str) -> Checkpoint:
    """A checkpoint of this repository by its name."""
    folder = CHECKPOINTS / name
    return decode({file: (folder / file).read_bytes() for file in CHECKPOINT_FILES})


def spec_of(family: str) -> EnvSpec:
    return EnvSpec.from_json(FAMILIES[family].spec_json())


def trajectories(name: str, tasks: list[Task], episodes: int, seed: int = 0) -> Transitions:
    """[tasks, episodes * horizon, dim]: exploring episodes under the prior context, as a robot's first ones are."""
    agent = checkpoint(name).agent
    rows = [task for task in tasks for _ in range(episodes)]
    played = collect(
        FAMILIES[name],
        rows,
        agent.policy,
        agent.prior_context.expand(len(rows), -1),
        rng=np.random.default_rng(seed),
        generator=torch.Generator().manual_seed(seed),
    )
    return Transitions(*(f.unflatten(0, (len(tasks), episodes)).flatten(1, 2) for f in played.transitions))


def tasks_of(name: str, count: int) -> list[Task]:
    """Test tasks, then training tasks, over and over."""
    family = FAMILIES[name]
    some = [*family.test_tasks, *family.train_tasks(0)]
    return [some[i % len(some)] for i in range(count)]
