"""The recorder over a client written by hand: what leaves when, and what an outage does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from mier_client.client import Client
from mier_client.errors import MierError, Problem, Unavailable
from mier_client.recorder import Recorder, Step


class FakeClient:
    """Keeps what was submitted; away for as long as it is told."""

    def __init__(self) -> None:
        self.away = False
        self.batches: list[tuple[int, int, list[float]]] = []
        self.ends: list[tuple[bool, bool]] = []

    def submit_transitions(
        self, session_id: str, *, episode: int, first_step: int, reward: Sequence[float], **columns: Any
    ) -> None:
        if self.away:
            raise Unavailable(Problem("UNREACHABLE", "no route"))
        assert columns["observation"].shape == (len(reward), 2)
        self.batches.append((episode, first_step, list(reward)))
        self.ends.append((columns["terminated"][-1], columns["truncated"][-1]))


def step(reward: float, terminated: bool = False, truncated: bool = False) -> Step:
    row = np.zeros(2, np.float32)
    return Step(row, row[:1], reward, row, terminated, truncated, policy_version=1)


def recorder(client: FakeClient, **settings: int) -> Recorder:
    return Recorder(cast(Client, client), "s", **settings)


def test_steps_leave_where_a_batch_is_full_and_where_an_episode_ends() -> None:
    client = FakeClient()
    recording = recorder(client, episode=4, submit_every_steps=2)
    for reward in (0.0, 1.0, 2.0):
        recording.add(step(reward))
    assert client.batches == [(4, 0, [0.0, 1.0])]
    recording.add(step(3.0, terminated=True))
    recording.add(step(4.0, truncated=True))
    assert client.batches[1:] == [(4, 2, [2.0, 3.0]), (5, 0, [4.0])]
    assert client.ends == [(False, False), (True, False), (False, True)]


def test_an_episode_that_is_broken_off_ends_with_its_last_step() -> None:
    client = FakeClient()
    recording = recorder(client)
    recording.add(step(0.0))
    recording.end_episode()
    recording.end_episode()
    recording.add(step(1.0, terminated=True))
    assert client.batches == [(0, 0, [0.0]), (1, 0, [1.0])]
    assert client.ends == [(False, True), (True, False)]


def test_an_outage_loses_nothing() -> None:
    """Broken on purpose: steps forgotten before they were acknowledged; seen: the first episode never came."""
    client = FakeClient()
    recording = recorder(client, submit_every_steps=3)
    client.away = True
    for reward in range(8):
        recording.add(step(float(reward), truncated=reward == 4))
    assert recording.pending_steps == 8
    client.away = False
    recording.submit()
    assert client.batches == [(0, 0, [0.0, 1.0, 2.0]), (0, 3, [3.0, 4.0]), (1, 0, [5.0, 6.0, 7.0])]
    assert recording.pending_steps == 0


def test_an_outage_is_told_once_there_is_no_room() -> None:
    client = FakeClient()
    client.away = True
    recording = recorder(client, submit_every_steps=2, max_pending_steps=4)
    for reward in range(3):
        recording.add(step(float(reward)))
    with pytest.raises(MierError, match="UNREACHABLE"):
        recording.add(step(3.0))
    assert recording.pending_steps == 4
