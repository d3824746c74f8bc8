"""Errors and values off the wire: both transports end at the same ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import httpx
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from mier_client import grpc_codec, http_codec
from mier_client.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    MierError,
    Overloaded,
    QuotaExceeded,
    ServerFault,
)
from mier_client.events import Events
from mier_client.values import Window


def http_error(status: int, body: object, headers: dict[str, str] | None = None) -> MierError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http_codec.error_from_response(httpx.Response(status, content=content, headers=headers))


def grpc_error(code: int, detail: str, *details: object) -> MierError:
    status = status_pb2.Status(code=code, message=detail)
    for item in details:
        packed = any_pb2.Any()
        packed.Pack(item)  # type: ignore[arg-type]
        status.details.append(packed)
    return grpc_codec.error_from_status(status)


def test_one_refusal_reads_the_same_over_both_transports() -> None:
    problem = {
        "type": "urn:problem-type:mier:invalid-argument",
        "detail": "observation: expected shape [17], got [16]",
        "reason": "INVALID_ARGUMENT",
        "request_id": "r1",
        "errors": [{"field": "observation", "detail": "expected shape [17], got [16]"}],
    }
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="observation", description="expected shape [17], got [16]"
    )
    over_http = http_error(422, problem)
    over_grpc = grpc_error(
        3,
        "observation: expected shape [17], got [16]",
        error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", domain="mier"),
        error_details_pb2.RequestInfo(request_id="r1"),
        error_details_pb2.BadRequest(field_violations=[violation]),
    )
    assert type(over_http) is type(over_grpc) is InvalidRequest
    assert over_http.problem == over_grpc.problem
    assert str(over_http) == "INVALID_ARGUMENT: observation: expected shape [17], got [16] (request r1)"


def test_overload_carries_the_pause_over_both_transports() -> None:
    over_http = http_error(503, {"reason": "QUEUE_FULL", "detail": "full"}, {"Retry-After": "10"})
    over_grpc = grpc_error(
        8,
        "full",
        error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="mier"),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=10)),
    )
    assert type(over_http) is type(over_grpc) is Overloaded
    assert over_http.problem.retry_after_s == over_grpc.problem.retry_after_s == 10.0


@pytest.mark.parametrize("reason", ["TOO_MANY_CALLS", "TOO_MANY_SESSIONS", "TOO_MANY_FINE_TUNES", "TOO_MUCH_STORED"])
def test_a_bound_of_the_callers_own_key_is_a_quota(reason: str) -> None:
    """Broken on purpose: with a reason left out of what gRPC's code stands for, it is the service's overload."""
    over_http = http_error(429, {"reason": reason, "detail": "full"}, {"Retry-After": "60"})
    over_grpc = grpc_error(
        8,
        "full",
        error_details_pb2.ErrorInfo(reason=reason, domain="mier"),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=60)),
    )
    assert type(over_http) is type(over_grpc) is QuotaExceeded
    assert isinstance(over_http, Overloaded)
    assert over_http.problem.retry_after_s == over_grpc.problem.retry_after_s == 60.0


@pytest.mark.parametrize(("status", "code"), [(409, 6), (409, 9)])
def test_what_the_state_forbids_is_a_conflict(status: int, code: int) -> None:
    assert type(http_error(status, {"reason": "SESSION_PAUSED", "detail": "x"})) is Conflict
    assert type(grpc_error(code, "x")) is Conflict


def test_a_body_that_is_too_large_is_no_overload() -> None:
    info = error_details_pb2.ErrorInfo(reason="BODY_TOO_LARGE", domain="mier")
    assert type(http_error(413, {"reason": "BODY_TOO_LARGE", "detail": "x"})) is InvalidRequest
    assert type(grpc_error(8, "x", info)) is InvalidRequest


def test_a_request_that_came_too_slowly_is_late() -> None:
    """Not a fault of its content: the same call may be made again."""
    info = error_details_pb2.ErrorInfo(reason="PEER_TOO_SLOW", domain="mier")
    assert type(http_error(408, {"reason": "PEER_TOO_SLOW", "detail": "x"})) is DeadlineExceeded
    assert type(grpc_error(4, "x", info)) is DeadlineExceeded


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"[]"])
def test_a_stranger_between_is_told_apart(body: bytes) -> None:
    error = http_error(500, body)
    assert type(error) is ServerFault
    assert error.reason == "HTTP_500"
    assert "without a problem document" in error.detail


def test_events_are_read_with_names_comments_and_several_lines() -> None:
    lines = [": ping", "event: operation", 'data: {"a":', "data: 1}", "", "", "data: plain", "", "event: problem"]
    reader = Events(time.monotonic() + 60.0)
    assert [event for line in lines if (event := reader.line(line))] == [
        ("operation", '{"a":\n1}'),
        ("message", "plain"),
    ]


def test_a_stream_of_comments_ends_at_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        Events(time.monotonic() - 1.0).line(": ping")


def test_windows_are_the_same_on_both_transports() -> None:
    for window, expected in (
        (Window(), {"all": True}),
        (Window(last_steps=5), {"last_steps": 5}),
        (Window(from_episode=0), {"from_episode": 0}),
    ):
        message = grpc_codec.window_message(window)
        assert http_codec.window_json(window) == expected
        assert {field.name: value for field, value in message.ListFields()} == expected


def test_the_client_needs_neither_torch_nor_mujoco() -> None:
    # An entry of None makes an import of that name fail, as on a machine without it.
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'mujoco', 'gymnasium', 'mier', 'mier_service')))\n"
        "import mier_client\n"
        "mier_client.Client.connect('grpc://127.0.0.1:1').close()\n"
        "mier_client.Client.connect('http://127.0.0.1:1').close()\n"
        "mier_client.AsyncClient.connect('grpc://127.0.0.1:1')\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
