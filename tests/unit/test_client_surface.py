"""The client itself, over a transport written by hand: what it sends, what it refuses, how it watches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mier_client import (
    Client,
    InvalidRequest,
    MierError,
    Operation,
    OperationFailed,
    OperationState,
    PolicyVersion,
    Promotion,
    Retrier,
    RetryPolicy,
    Submitted,
    Unavailable,
    VersionOrigin,
    Window,
)
from mier_client.errors import Problem
from mier_client.transport import Page, TransitionBatch
from mier_client.values import Fault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = Operation(
    id="op",
    session_id="s",
    state=OperationState.RUNNING,
    cancel_requested=False,
    updates_done=10,
    updates_total=100,
    metrics={},
    seed=0,
    transitions_used=400,
    start_version=2,
    result_version=None,
    error=None,
    attempts=1,
    create_time=NOW,
    update_time=NOW,
)
SUCCEEDED = replace(RUNNING, state=OperationState.SUCCEEDED, updates_done=100, result_version=3)


@dataclass
class FakeTransport:
    """Answers from lists; remembers what came. Only the calls that these tests make."""

    failures: list[MierError] = field(default_factory=list)
    streams: list[list[Operation | MierError]] = field(default_factory=list)
    batches: list[TransitionBatch] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)

    def submit_transitions(self, session_id: str, batch: TransitionBatch, key: str, timeout_s: float) -> Submitted:
        self.batches.append(batch)
        self.keys.append(key)
        if self.failures:
            raise self.failures.pop(0)
        return Submitted(len(batch.reward), 0, len(batch.reward))

    def finetune(self, session_id: str, updates: int | None, seed: int, key: str, timeout_s: float) -> Operation:
        self.keys.append(key)
        if self.failures:
            raise self.failures.pop(0)
        return RUNNING

    def watch_operation(self, operation_id: str, timeout_s: float) -> Iterator[Operation]:
        for item in self.streams.pop(0):
            if isinstance(item, MierError):
                raise item
            yield item

    def list_versions(self, session_id: str, page: Page, timeout_s: float) -> tuple[Sequence[PolicyVersion], str]:
        start = int(page.token or "1")
        versions = [version(number) for number in range(start, min(start + 2, 6))]
        return versions, str(start + 2) if start + 2 < 6 else ""


def version(number: int) -> PolicyVersion:
    return PolicyVersion(
        number=number,
        parent=number - 1,
        weights_hash="0" * 64,
        policy_context=np.zeros(5, np.float32),
        model_context_number=0,
        origin=VersionOrigin.ADAPT,
        promotion=Promotion.UNGATED,
        operation_id=None,
        checkpoint_hash="0" * 64,
        transitions_used=0,
        seed=None,
        configuration_json=None,
        create_time=NOW,
    )


def client(transport: Any) -> Client:
    return Client(transport, retrier=Retrier(RetryPolicy(attempts=3), sleep=lambda _: None))


def lost() -> Unavailable:
    return Unavailable(Problem("UNREACHABLE", "connection reset"))


def submit(over: FakeTransport, **changed: Any) -> Submitted:
    arguments: dict[str, Any] = {
        "episode": 0,
        "first_step": 0,
        "observation": np.zeros((3, 2)),
        "action": np.zeros((3, 1)),
        "reward": [0.0, 1.0, 2.0],
        "next_observation": np.ones((3, 2)),
        "policy_version": 1,
    }
    return client(over).submit_transitions("s", **(arguments | changed))


def test_a_retried_write_keeps_its_idempotency_key() -> None:
    transport = FakeTransport(failures=[lost(), lost()])
    assert client(transport).finetune("s").id == "op"
    assert len(transport.keys) == 3
    assert len(set(transport.keys)) == 1


def test_two_writes_have_two_keys() -> None:
    transport = FakeTransport()
    robot = client(transport)
    robot.finetune("s")
    robot.finetune("s")
    assert len(set(transport.keys)) == 2


def test_a_batch_is_sent_as_float32_with_flags_filled_in() -> None:
    transport = FakeTransport()
    submit(transport, truncated=[False, False, True])
    (batch,) = transport.batches
    assert batch.observation.dtype == np.float32
    assert batch.reward.tolist() == [0.0, 1.0, 2.0]
    assert batch.terminated.tolist() == [False] * 3
    assert batch.truncated.tolist() == [False, False, True]
    assert batch.policy_version == (1,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"observation": [[np.nan, 0.0]]}, r"observation: expected finite float32 values, got nan at \[0, 0\]"),
        ({"reward": [1e39, 0.0, 0.0]}, r"reward: expected finite float32 values, got 1e\+39 at \[0\]"),
        ({"action": [0.0, 0.0]}, r"action: expected 2 axes, got shape \[2\]"),
        ({"reward": ["a"]}, "reward: expected numbers, got dtype <U1"),
        ({"terminated": [True]}, r"terminated: expected 3 booleans, got shape \[1\], dtype bool"),
    ],
)
def test_bad_arrays_are_refused_before_anything_is_sent(changed: dict[str, Any], message: str) -> None:
    transport = FakeTransport()
    with pytest.raises(InvalidRequest, match=message) as refused:
        submit(transport, **changed)
    assert transport.batches == []
    assert refused.value.problem.violations[0].field == next(iter(changed))


def test_a_broken_watch_is_taken_up_again() -> None:
    transport = FakeTransport(streams=[[RUNNING, lost()], [], [RUNNING, SUCCEEDED]])
    states = [operation.state for operation in client(transport).watch_operation("op")]
    assert states == [OperationState.RUNNING, OperationState.RUNNING, OperationState.SUCCEEDED]


def test_a_watch_gives_up_where_nothing_comes() -> None:
    transport = FakeTransport(streams=[[lost()], [lost()], [lost()]])
    with pytest.raises(Unavailable):
        list(client(transport).watch_operation("op"))
    assert transport.streams == []


def test_waiting_returns_what_succeeded() -> None:
    transport = FakeTransport(streams=[[RUNNING, SUCCEEDED]])
    assert client(transport).wait_operation("op").result_version == 3


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        (replace(RUNNING, state=OperationState.CANCELLED), "CANCELLED: operation op was cancelled"),
        (
            replace(RUNNING, state=OperationState.FAILED, error=Fault("FINE_TUNE_FAILED", "diverged")),
            "FINE_TUNE_FAILED: diverged",
        ),
    ],
)
def test_waiting_says_why_it_did_not_succeed(ended: Operation, message: str) -> None:
    transport = FakeTransport(streams=[[RUNNING, ended]])
    with pytest.raises(OperationFailed, match=message):
        client(transport).wait_operation("op")


def test_pages_are_joined() -> None:
    assert [v.number for v in client(FakeTransport()).list_versions("s")] == [1, 2, 3, 4, 5]


def test_a_window_is_one_thing() -> None:
    with pytest.raises(ValueError, match="got both"):
        Window(last_steps=5, from_episode=1)


@pytest.mark.parametrize("url", ["127.0.0.1:50051", "ftp://host:1", "grpc://", "grpc://host"])
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Client.connect(url)
