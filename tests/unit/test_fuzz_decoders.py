"""Whatever reads bytes of the other side, under bytes of anybody: the service's readers raise its one typed error (or a
ValueError that says what came), the client's their own, and neither anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from mier_client import grpc_codec, http_codec, transition_codec
from mier_client.errors import MierError, ServerFault
from mier_proto import convert
from mier_proto.v1 import adaptation_pb2 as pb
from mier_service import pages
from mier_service.acting.budget import Budget
from mier_service.errors import Reason, ServiceError, Violation
from mier_service.grpc import messages as grpc_messages
from mier_service.grpc.statuses import status_of
from mier_service.http import acting as http_acting
from mier_service.http import bodies as http_bodies
from tests.contract import fuzz_messages
from tests.fuzzing import Tried, fuzz
from tests.unit import hostile

TRAILERS_BYTES = 8 * 1024
"""What a gRPC client takes by default; beyond it the refusal is lost with everything that it says."""
texts = st.one_of(st.text(max_size=50), st.text(max_size=9).map(lambda text: text * 700))
json_bytes = st.one_of(
    hostile.json_values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    st.sampled_from([b"[" * 5_000, b'{"a":' * 5_000, b"9" * 5_000, b'"\\ud800"', b"1e999", b"NaN", b""]),
)


def refused(read: Callable[[], Any], *errors: type[Exception]) -> Any:
    """What it reads, or None if it is refused as it should be."""
    try:
        return read()
    except errors:
        return None


def test_tensors_are_read_or_refused(tried: Tried) -> None:
    @fuzz(200)
    @given(fuzz_messages.tensors(), st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=3)))
    def run(tensor: pb.Tensor, shape: list[int | None] | None) -> None:
        tried()
        found = refused(lambda: convert.decode(tensor, "x", shape), ValueError)
        if found is not None:
            assert found.dtype == np.float32
            assert list(found.shape) == list(tensor.shape)
            assert np.isfinite(found).all()

    run()


def test_raw_rows_are_read_or_refused(tried: Tried) -> None:
    shapes = st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=3)

    @fuzz(200)
    @given(st.binary(max_size=80), shapes)
    def run(data: bytes, shape: list[int | None]) -> None:
        tried()
        found = refused(lambda: convert.decode_raw(data, "rows", shape), ValueError)
        if found is not None:
            assert found.tobytes() == data
            assert np.isfinite(found).all()
        single = refused(lambda: http_acting.observation_of(data), ServiceError)
        assert single is None or single.tobytes() == data

    run()


def test_what_is_no_array_is_not_encoded(tried: Tried) -> None:
    arrays = st.one_of(
        hostile.json_values,
        st.lists(st.complex_numbers(), max_size=3),
        st.lists(st.binary(max_size=3), max_size=3),
        st.lists(st.lists(st.floats(width=32), max_size=3), max_size=3),
        st.datetimes(),
    )

    @fuzz(200)
    @given(arrays)
    def run(array: Any) -> None:
        tried()
        message = refused(lambda: convert.encode(array), ValueError)
        if message is not None:
            np.testing.assert_array_equal(convert.decode(message, "x"), np.asarray(array, np.float32))

    run()


BODIES: dict[type[http_bodies.Body], dict[str, Any]] = {
    http_bodies.CreateSessionBody: {
        "checkpoint": "c",
        "seed": 1,
        "expected_environment": {
            "dt_s": 0.05,
            "observation_names": ["x"],
            "varies": "reward",
            "healthy_ranges": [{"index": 0, "low": -1.0, "high": 1.0}],
        },
        "fallback": "hold_last",
        "action_limits": {"low": [-0.5], "high": [0.5], "max_change": [0.1]},
        "max_observation_age_ms": 100.0,
    },
    http_bodies.TransitionsBody: {
        "session_id": "s",
        "episode": 0,
        "first_step": 0,
        "observation": [[0.0, 1.0]],
        "action": [[0.5]],
        "reward": [1.0],
        "next_observation": [[0.0, 1.0]],
        "terminated": [False],
        "truncated": [True],
        "policy_version": [0],
    },
    http_bodies.AdaptBody: {"session_id": "s", "window": {"last_steps": 4}},
    http_bodies.FineTuneBody: {"session_id": "s", "updates": 4, "seed": 0},
    http_bodies.PromoteBody: {"version": 1, "reason": "r"},
    http_bodies.RollbackBody: {"reason": "r"},
    http_bodies.PinBody: {"version": 2, "reason": "r"},
    http_bodies.UnpinBody: {"reason": "r"},
    http_bodies.MoveBody: {"checkpoint": "c", "reason": "r"},
    http_bodies.ModeBody: {"mode": "auto"},
    http_bodies.ActBody: {
        "session_id": "s",
        "observation": [0.0],
        "deterministic": True,
        "episode": 0,
        "step": 0,
        "budget_ms": 20.0,
        "observed_at_unix_us": 1_700_000_000_000_000,
        "previous_action": [0.0],
    },
    http_bodies.ActBatchBody: {"requests": [{"session_id": "s", "observation": [0.0], "deterministic": True}]},
}


def test_every_body_is_here() -> None:
    """Failed when lineage by hand brought five new bodies."""
    assert set(BODIES) == set(http_bodies.BODIES)


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_are_read_or_refused(kind: type[http_bodies.Body], tried: Tried) -> None:
    altered = hostile.altered_tree(BODIES[kind]).map(_text)

    @fuzz(100)
    @given(st.one_of(altered, altered, json_bytes))
    def run(data: bytes) -> None:
        tried()
        body = refused(lambda: http_bodies.parse(kind, data), ServiceError)
        if isinstance(body, http_bodies.TransitionsBody):
            refused(lambda: body.submission(""), ServiceError)
        if isinstance(body, http_bodies.ActBody):
            refused(lambda: body.call(0.0), ServiceError)
        if body is not None:
            _same_types(body.model_dump(mode="json", exclude_unset=True), json.loads(data))

    run()


def _text(tree: Any) -> bytes:
    return json.dumps(tree, default=lambda odd: str(odd)).encode()


def _same_types(read: Any, sent: Any) -> None:
    """Nothing was taken for something of another type."""
    if isinstance(read, dict):
        for name, value in read.items():
            _same_types(value, sent[name])
    elif isinstance(read, list):
        for one, other in zip(read, sent, strict=True):
            _same_types(one, other)
    elif isinstance(read, int | float) and not isinstance(read, bool):
        assert isinstance(sent, int | float), (read, sent)
        assert not isinstance(sent, bool), (read, sent)
        assert read == sent
    else:
        assert type(read) is type(sent), (read, sent)


def _budget(message: pb.ActRequest) -> Budget | None:
    return Budget.of(0.0, message.budget_ms) if message.HasField("budget_ms") else None


def test_messages_are_read_or_refused(tried: Tried) -> None:
    readers: list[tuple[Any, Callable[[Any], Any]]] = [
        (pb.SubmitTransitionsRequest, grpc_messages.submission),
        (pb.ActRequest, lambda message: grpc_messages.act_call(message, _budget(message))),
        (pb.CreateSessionRequest, grpc_messages.acting_rules),
        (pb.EnvironmentSpec, grpc_messages.expected_environment),
        (pb.Window, grpc_messages.window),
    ]

    @fuzz(150)
    @given(st.sampled_from(readers), st.data())
    def run(reader: tuple[Any, Callable[[Any], Any]], data: st.DataObject) -> None:
        tried()
        kind, read = reader
        message = data.draw(fuzz_messages.wrapped(kind.DESCRIPTOR)).message
        refused(lambda: read(message), ServiceError)

    run()


def test_tokens_are_read_or_refused(tried: Tried) -> None:
    @fuzz(200)
    @given(
        st.one_of(
            st.text(),
            st.text("0123456789=+/-_ ", max_size=30),
            st.integers(0).map(pages.encode_token),
            st.tuples(st.integers(0), st.integers(0)).map(pages.encode_place),
        )
    )
    def run(token: str) -> None:
        tried()
        position = refused(lambda: pages.decode_token(token), ServiceError)
        assert position is None or 0 <= position < 2**62
        place = refused(lambda: pages.decode_place(token), ServiceError)
        assert place is None or all(0 <= number < 2**62 for number in place)
        assert not token or position is None or place is None, "one list took the token of another"

    run()


def test_a_refusal_reaches_its_caller_whole(tried: Tried) -> None:
    """Whatever it quotes, gRPC's trailers hold it."""
    violations = st.lists(st.builds(Violation, texts, texts), max_size=25).map(tuple)

    @fuzz(100)
    @given(st.sampled_from(Reason), texts, violations)
    def run(reason: Reason, detail: str, found: tuple[Violation, ...]) -> None:
        tried()
        error = ServiceError(reason, detail, found)
        if any("\ud800" <= letter <= "\udfff" for letter in detail + "".join(f.field + f.description for f in found)):
            return  # no message of the contract can hold half a letter
        details = len(status_of(error, "x" * 64).SerializeToString()) * 4 / 3
        message = sum(1 if 32 <= byte < 127 and byte != 37 else 3 for byte in error.detail.encode())
        assert details + message < TRAILERS_BYTES - 512

    run()


TIME = "2026-01-02T03:04:05.678901Z"
HASH = "0" * 64
CONTEXT = {"number": 1, "values": [0.5], "heldout_nll_before": 1.0, "heldout_nll_after": None, "ood_score": 0.1,
           "transitions_used": 4, "window": None, "create_time": TIME}  # fmt: skip
VERSION = {"number": 1, "parent": 0, "weights_hash": HASH, "policy_context": [0.5], "model_context_number": 1,
           "origin": "adapt", "promotion": "ungated", "operation_id": None, "checkpoint_hash": HASH,
           "transitions_used": 4, "seed": None, "configuration_json": None, "create_time": TIME}  # fmt: skip
SESSION = {
    "id": "s", "checkpoint": "c", "checkpoint_hash": HASH, "seed": 0, "state": "active", "active_version": 1,
    "model_context": CONTEXT, "transitions_count": 4, "create_time": TIME,
    "environment": {
        "id": "e", "observation_dim": 1, "action_dim": 1, "observation_names": ["x"], "action_names": ["a"],
        "action_low": [-1.0], "action_high": [1.0], "dt_s": 0.05, "horizon_steps": 9, "varies": "reward",
        "healthy_ranges": [{"index": 0, "low": -1.0, "high": 1.0}],
    },
}  # fmt: skip
OPERATION = {"id": "o", "session_id": "s", "state": "failed", "cancel_requested": False, "updates_done": 1,
             "updates_total": 2, "metrics": {"alpha": 0.1}, "seed": 0, "transitions_used": 4, "start_version": 1,
             "result_version": 0, "error": {"reason": "FINE_TUNE_FAILED", "detail": "d"}, "attempts": 1,
             "create_time": TIME, "update_time": TIME}  # fmt: skip
PROBLEM = {"type": "urn:x", "title": "t", "status": 503, "detail": "d", "reason": "DRAINING", "request_id": "r",
           "errors": [{"field": "f", "detail": "d"}]}  # fmt: skip
PROMOTION = {"kind": "promote", "from_version": 1, "to_version": 2, "who": "", "reason": "r", "create_time": TIME}
RUN = {"episode": 0, "first_step": 3, "observation": [[0.5], [1.0]], "action": [[0.1], [0.2]], "reward": [1.0, 2.0],
       "next_observation": [[1.0], [1.5]], "terminated": [False, True], "truncated": [False, False],
       "policy_version": [1, 0]}  # fmt: skip
REPLIES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "session": (http_codec.session, SESSION),
    "sessions": (http_codec.sessions, {"sessions": [SESSION], "next_page_token": ""}),
    "version": (http_codec.policy_version, VERSION),
    "versions": (http_codec.versions, {"versions": [VERSION], "next_page_token": "x"}),
    "promotions": (http_codec.promotions, {"promotions": [PROMOTION], "next_page_token": ""}),
    "operation": (http_codec.operation, OPERATION),
    "event": (lambda body: http_codec.event(json.dumps(body)), OPERATION),
    "adapted": (
        http_codec.adapted,
        {"model_context": CONTEXT, "active_version": VERSION, "published": True, "elapsed_ms": 1.0},
    ),
    "acted": (http_codec.acted, {"action": [0.5, -0.5], "policy_version": 1, "weights_hash": HASH}),
    "transitions": (transition_codec.http_page, {"runs": [RUN], "next_page_token": ""}),
    "submitted": (http_codec.submitted, {"stored": 1, "duplicates": 0, "transitions_count": 1}),
    "problem": (lambda body: http_codec.error_from_event(json.dumps(body)), PROBLEM),
}


@pytest.mark.parametrize("name", REPLIES)
def test_replies_over_http_are_read_or_are_the_servers_fault(name: str, tried: Tried) -> None:
    read, right = REPLIES[name]
    read(right)

    @fuzz(60)
    @given(st.one_of(hostile.altered_tree(right), hostile.altered_tree(right), hostile.json_values))
    def run(body: Any) -> None:
        tried()
        body = json.loads(_text(body))
        found = refused(lambda: read(body), ServerFault)
        if name == "acted" and found is not None:
            assert found.action.dtype == np.float32
            assert found.action.ndim == 1
            assert np.isfinite(found.action).all()

    run()


def test_a_refusal_over_http_is_typed_whatever_it_holds(tried: Tried) -> None:
    """Failed on what was so once: RecursionError, of a reply nested deep."""
    bodies = st.one_of(hostile.altered_tree(PROBLEM).map(_text), json_bytes)
    waits = st.sampled_from([None, "5", "\u00b2", "-1", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "", "1.5"])

    @fuzz(150)
    @given(st.integers(400, 599), bodies, waits)
    def run(status: int, body: bytes, wait: str | None) -> None:
        tried()
        headers = [] if wait is None else [(b"retry-after", wait.encode("latin-1"))]
        error = http_codec.error_from_response(httpx.Response(status, content=body, headers=headers))
        assert isinstance(error, MierError)
        str(error)

    run()


GRPC_REPLIES: list[tuple[Any, Callable[[Any], Any]]] = [
    (pb.Session, grpc_codec.session),
    (pb.PolicyVersion, grpc_codec.policy_version),
    (pb.PromotionRecord, grpc_codec.promotion_record),
    (pb.Operation, grpc_codec.operation),
    (pb.ModelContext, grpc_codec.model_context),
    (pb.ActResponse, grpc_codec.acted),
    (pb.ListTransitionsResponse, transition_codec.grpc_page),
]


@pytest.mark.parametrize(("kind", "read"), GRPC_REPLIES)
def test_replies_over_grpc_are_read_or_are_the_servers_fault(
    kind: Any, read: Callable[[Message], Any], tried: Tried
) -> None:
    @fuzz(60)
    @given(fuzz_messages.wrapped(kind.DESCRIPTOR))
    def run(reply: fuzz_messages.Request) -> None:
        tried()
        found = refused(lambda: read(reply.message), ServerFault)
        if kind is pb.ActResponse and found is not None:
            assert found.action.ndim == 1
            assert np.isfinite(found.action).all()

    run()


def test_a_refusal_over_grpc_is_typed_whatever_it_holds(tried: Tried) -> None:
    parts: list[Message] = [
        error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="mier"),
        error_details_pb2.RetryInfo(),
        error_details_pb2.BadRequest(field_violations=[error_details_pb2.BadRequest.FieldViolation(field="f")]),
        error_details_pb2.RequestInfo(request_id="r"),
    ]
    good = status_pb2.Status(code=8, message="m")
    for part in parts:
        packed = any_pb2.Any()
        packed.Pack(part)
        good.details.append(packed)

    @fuzz(200)
    @given(hostile.altered_bytes(good.SerializeToString()), st.integers(0, 40))
    def run(data: bytes, code: int) -> None:
        tried()
        status = refused(lambda: status_pb2.Status.FromString(data), DecodeError)
        if status is not None:
            status.code = code
            error = grpc_codec.error_from_status(status)
            assert isinstance(error, MierError)
            str(error)

    run()
