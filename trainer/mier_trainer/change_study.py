"""Tasks that change in mid-run: how soon it is noticed, how often without cause, and what the return does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mier.checkpoint import Checkpoint
from mier.session import Session
from mier.types import Transitions
from mier_envs.families import Family, Task
from mier_envs.switching import take_over

_CHUNK_STEPS = 5
"""Transitions that are submitted together; the context, and with it the policy, may move after each lot."""


def change_rows(
    checkpoint: Checkpoint, family: Family, before: Task, after: Task, *, seed: int, calm: int, changed: int
) -> Iterator[dict[str, Any]]:
    """One row an episode: `calm` episodes of `before`, one in the middle of which the task changes where it runs, and
    `changed` of `after`; exploring, in one session whose context follows.

    `alarms` are the steps of the episode at which a change was confirmed.
    """
    session = Session(checkpoint, seed)
    horizon = checkpoint.spec.horizon_steps
    for number in range(calm + 1 + changed):
        switch = horizon if number < calm else horizon // 2 if number == calm else 0
        alarms: list[int] = []
        total = 0.0
        for stop, rows in _episode(session, family, before, after, switch, seed, number):
            total += rows.reward.sum().item()
            session.observe(rows)
            found = session.follow(episode_ended=stop == horizon)
            if found is not None and found.changed:
                alarms.append(stop)
        yield {
            "before": before.name,
            "after": after.name,
            "seed": seed,
            "episode": number,
            "switch": switch,
            "return": round(total, 3),
            "alarms": alarms,
            "transitions_used": session.following.rows if session.following else 0,
        }


def _episode(
    session: Session, family: Family, before: Task, after: Task, switch: int, seed: int, number: int
) -> Iterator[tuple[int, Transitions]]:
    """(steps so far, the transitions of the last few) of one episode; from step `switch` on the task is `after`."""
    env = family.make(before if switch else after)
    observation, _ = env.reset(seed=1000 * seed + number)
    lot: list[tuple[Any, ...]] = []
    for step in range(session.checkpoint.spec.horizon_steps):
        if step == switch and switch:
            env = take_over(env, family.make(after))
        action = session.act(np.asarray(observation, np.float32), episode=number, step=step, deterministic=False)
        following, reward, terminated, truncated, _ = env.step(action)
        lot.append((observation, action, reward, following, terminated))
        observation = following
        if len(lot) == _CHUNK_STEPS or terminated or truncated:
            fields = zip(*lot, strict=True)
            yield step + 1, Transitions(*(torch.from_numpy(np.asarray(each, np.float32)) for each in fields))
            lot = []
        if terminated or truncated:
            break
    env.close()


@dataclass(frozen=True)
class Noticing:
    """How changes were noticed."""

    changes: int
    missed: float
    """Share not noticed by the end of their episode."""
    median_delay_steps: float
    longest_delay_steps: float
    false_alarms: float
    """Per episode: all alarms but the first after a change."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], horizon: int) -> Noticing:
        """Of rows as `change_rows` yields them."""
        delays, missed, alarms = [], 0, 0
        for row in rows:
            alarms += len(row["alarms"])
            if 0 < row["switch"] < horizon:
                later = [step - row["switch"] for step in row["alarms"] if step > row["switch"]]
                delays += later[:1]
                missed += not later
        changes = len(delays) + missed
        return cls(
            changes,
            missed / changes if changes else 0.0,
            float(np.median(delays)) if delays else math.nan,
            float(max(delays, default=math.nan)),
            (alarms - len(delays)) / len(rows) if rows else 0.0,
        )
