"""Runs of transitions <-> whole pieces of episodes, as data sets keep them: n + 1 observations for n steps.

A session's steps may have gaps, and what was seen after a step need not be what was seen before the next one. A piece
ends there, so that nothing is lost and nothing is made up: pieces put together again give the steps that there were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mier_client.transport import TransitionBatch

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Piece:
    """n consecutive steps of one episode, each beginning with what the one before it led to."""

    episode: int
    first_step: int
    observation: FloatArray
    """[n + 1, observation_dim]"""
    action: FloatArray
    """[n, action_dim]"""
    reward: FloatArray
    """[n]"""
    terminated: npt.NDArray[np.bool_]
    """[n]"""
    truncated: npt.NDArray[np.bool_]
    """[n]"""
    policy_version: npt.NDArray[np.int64]
    """[n] 0: no version chose the action."""

    @property
    def count(self) -> int:
        return len(self.reward)


def pieces(runs: Iterable[TransitionBatch]) -> list[Piece]:
    """By episode, and by step within it. All of them are in memory."""
    ordered = sorted(runs, key=lambda run: (run.episode, run.first_step))
    groups: list[list[TransitionBatch]] = []
    for run in ordered:
        if groups and _goes_on(groups[-1][-1], run):
            groups[-1].append(run)
        else:
            groups.append([run])
    return [piece for group in groups for piece in _cut(group)]


def _goes_on(before: TransitionBatch, run: TransitionBatch) -> bool:
    return (before.episode, before.first_step + len(before.reward)) == (run.episode, run.first_step)


def _cut(group: list[TransitionBatch]) -> Iterator[Piece]:
    """Of runs that go on with each other; cut where the episode ended, or was seen anew."""
    observation, following, action, reward, terminated, truncated, version = (
        np.concatenate([np.asarray(getattr(run, name)) for run in group])
        for name in (
            "observation",
            "next_observation",
            "action",
            "reward",
            "terminated",
            "truncated",
            "policy_version",
        )
    )
    ended = terminated[:-1] | truncated[:-1]
    edges = [0, *(np.flatnonzero((observation[1:] != following[:-1]).any(1) | ended) + 1).tolist(), len(reward)]
    for start, stop in pairwise(edges):
        part = slice(start, stop)
        yield Piece(
            episode=group[0].episode,
            first_step=group[0].first_step + start,
            observation=np.concatenate([observation[part], following[stop - 1 : stop]]),
            action=action[part],
            reward=reward[part],
            terminated=terminated[part],
            truncated=truncated[part],
            policy_version=version[part].astype(np.int64),
        )
