"""Acting over a stream: lockstep, each act with its deadline, a broken stream opened again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from google.rpc import status_pb2

from mier_client.act_stream import GrpcActStream
from mier_client.errors import DeadlineExceeded, InvalidRequest, Unavailable
from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb

Answer = Callable[[int, pb.ActRequest], pb.ActOutcome | None]
PATIENT_S = 10.0


class FakeStreams:
    """Opens streams that answer as told: `answer(stream number, request)`; None ends the stream."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.opened = 0

    def open(self, requests: Iterator[pb.ActStreamRequest]) -> Any:
        self.opened += 1
        return FakeStream(self._replies(self.opened, requests))

    def _replies(self, number: int, requests: Iterator[pb.ActStreamRequest]) -> Iterator[pb.ActStreamResponse]:
        for request in requests:
            outcome = self._answer(number, request.request)
            if outcome is None:
                return
            yield pb.ActStreamResponse(outcome=outcome)


class FakeStream:
    """What gRPC's call object offers here: iteration, and cancel."""

    def __init__(self, replies: Iterator[pb.ActStreamResponse]) -> None:
        self._replies = replies

    def __iter__(self) -> Iterator[pb.ActStreamResponse]:
        return self._replies

    def cancel(self) -> None:
        """The requests have ended already."""


def request(step: int) -> pb.ActRequest:
    return pb.ActRequest(session_id="s", step=step)


def echo(asked: pb.ActRequest) -> pb.ActOutcome:
    response = pb.ActResponse(action=encode(np.array([asked.step])), policy_version=1, weights_hash="0" * 64)
    return pb.ActOutcome(response=response)


def test_replies_belong_to_their_requests_on_one_stream() -> None:
    streams = FakeStreams(lambda _, asked: echo(asked))
    stream = GrpcActStream(streams.open)
    assert [stream.act(request(step), PATIENT_S).action.tolist() for step in range(3)] == [[0.0], [1.0], [2.0]]
    assert streams.opened == 1
    stream.close()


def test_a_refused_request_does_not_end_the_stream() -> None:
    refusal = pb.ActOutcome(error=status_pb2.Status(code=3, message="observation: expected shape [17]"))
    streams = FakeStreams(lambda _, asked: refusal if asked.step == 0 else echo(asked))
    stream = GrpcActStream(streams.open)
    with pytest.raises(InvalidRequest, match="expected shape"):
        stream.act(request(0), PATIENT_S)
    assert stream.act(request(1), PATIENT_S).policy_version == 1
    assert streams.opened == 1
    stream.close()


def test_a_late_reply_is_never_taken_for_another() -> None:
    release = threading.Event()

    def late_at_first(number: int, asked: pb.ActRequest) -> pb.ActOutcome:
        if number == 1:
            release.wait(PATIENT_S)
        return echo(asked)

    streams = FakeStreams(late_at_first)
    stream = GrpcActStream(streams.open)
    with pytest.raises(DeadlineExceeded, match=r"no action within 0\.01 s"):
        stream.act(request(7), 0.01)
    release.set()
    assert stream.act(request(8), PATIENT_S).action.tolist() == [8.0]
    assert streams.opened == 2
    stream.close()


def test_a_stream_that_ended_is_opened_again() -> None:
    streams = FakeStreams(lambda number, asked: None if number == 1 else echo(asked))
    stream = GrpcActStream(streams.open)
    with pytest.raises(Unavailable, match="STREAM_ENDED"):
        stream.act(request(0), PATIENT_S)
    assert stream.act(request(0), PATIENT_S).policy_version == 1
    stream.close()
