"""One mistake, made over both transports: the same refusal, with the status and the code that belong to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.message import Message

from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_service.errors import RULES, Reason
from tests.contract import refusals, tiny
from tests.contract.every_call import SERVICE
from tests.contract.fuzzed import CHECKPOINT, MAX_BODY_BYTES, OPERATION, SESSION, Fuzzed
from tests.contract.helpers import CALL_S, batch

LARGE = np.full(tiny.OBSERVATION_DIM, 3e38, np.float32)


@dataclass(frozen=True)
class Mistake:
    """A request that is refused, in both tongues; SESSION and OPERATION stand for ids that exist."""

    reason: Reason
    http: tuple[str, str]
    method: str
    message: Message | bytes
    body: dict[str, Any] | bytes | None = None
    query: dict[str, Any] | None = None
    key: str = "admin"
    idempotency_key: str = ""
    http_alone: bool = False
    """What HTTP has for what gRPC does not have: media types, methods of a route."""


def _steps(**changes: Any) -> tuple[dict[str, Any], pb.SubmitTransitionsRequest]:
    """A batch of the session with some fields changed, as a body and as a message."""
    rows: dict[str, Any] = {name: array.copy() for name, array in tiny.arrays(3, 3).items()}
    fields: dict[str, Any] = {"session_id": SESSION, "episode": 5, "first_step": 0, "policy_version": [1], **rows}
    fields |= changes
    body = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}
    message: dict[str, Any] = {
        name: encode(value) if isinstance(value, np.ndarray) else value for name, value in fields.items()
    }
    return body, pb.SubmitTransitionsRequest(**message)


def _submit(reason: Reason, **changes: Any) -> Mistake:
    body, message = _steps(**changes)
    return Mistake(reason, ("POST", "/transitions"), "SubmitTransitions", message, body)


def _act(reason: Reason, observation: Any, **fields: Any) -> Mistake:
    body = {"session_id": SESSION, "observation": observation.tolist(), **fields}
    message = pb.ActRequest(**{"session_id": SESSION, "observation": encode(observation), **fields})
    return Mistake(reason, ("POST", "/act"), "Act", message, body)


def _create(reason: Reason, **fields: Any) -> Mistake:
    given = {"checkpoint": CHECKPOINT, **fields}
    return Mistake(reason, ("POST", "/sessions"), "CreateSession", pb.CreateSessionRequest(**given), given)


def _expecting(reason: Reason, **fields: Any) -> Mistake:
    message = pb.CreateSessionRequest(checkpoint=CHECKPOINT, expected_environment=pb.EnvironmentSpec(**fields))
    body = {"checkpoint": CHECKPOINT, "expected_environment": fields}
    return Mistake(reason, ("POST", "/sessions"), "CreateSession", message, body)


def _adapt(reason: Reason, **window: Any) -> Mistake:
    message = pb.AdaptRequest(session_id=SESSION, window=pb.Window(**window))
    return Mistake(reason, ("POST", "/adapt"), "Adapt", message, {"session_id": SESSION, "window": window})


OBSERVATION = np.zeros(tiny.OBSERVATION_DIM, np.float32)
R = Reason
MISTAKES = {
    "no such session": Mistake(
        R.SESSION_NOT_FOUND, ("GET", "/sessions/nobody"), "GetSession", pb.GetSessionRequest(session_id="nobody")
    ),
    "versions of no session": Mistake(
        R.SESSION_NOT_FOUND, ("GET", "/sessions/x/versions"), "ListVersions", pb.ListVersionsRequest(session_id="x")
    ),
    "no such session to act by oneself": Mistake(
        R.SESSION_NOT_FOUND, ("GET", "/sessions/x/bundle"), "GetBundle", pb.GetBundleRequest(session_id="x")
    ),
    "a graph that has no such name": Mistake(
        R.INVALID_ARGUMENT,
        ("GET", f"/sessions/{SESSION}/bundle"),
        "GetBundle",
        pb.GetBundleRequest(session_id=SESSION, known_graphs=["A" * 64]),
        query={"known_graphs": ["A" * 64]},
    ),
    "no such session to act": _act(R.SESSION_NOT_FOUND, OBSERVATION, session_id="\u00e9\u00e8", deterministic=True),
    "no such checkpoint": _create(R.CHECKPOINT_NOT_FOUND, checkpoint="../../etc"),
    "no such operation": Mistake(
        R.OPERATION_NOT_FOUND, ("GET", "/operations/x"), "GetOperation", pb.GetOperationRequest(operation_id="x")
    ),
    "no such operation to watch": Mistake(
        R.OPERATION_NOT_FOUND,
        ("GET", "/operations/x/events"),
        "WatchOperation",
        pb.WatchOperationRequest(operation_id="x"),
    ),
    "no such operation to cancel": Mistake(
        R.OPERATION_NOT_FOUND,
        ("POST", "/operations/x/cancel"),
        "CancelOperation",
        pb.CancelOperationRequest(operation_id="x"),
    ),
    "no such version": Mistake(
        R.VERSION_NOT_FOUND,
        ("POST", f"/sessions/{SESSION}/promote"),
        "PromoteVersion",
        pb.PromoteVersionRequest(session_id=SESSION, version=99, reason="r"),
        {"version": 99, "reason": "r"},
    ),
    "a decision without a reason": Mistake(
        R.INVALID_ARGUMENT,
        ("POST", f"/sessions/{SESSION}/pin"),
        "PinVersion",
        pb.PinVersionRequest(session_id=SESSION),
        {"reason": ""},
    ),
    "seed below": _create(R.INVALID_ARGUMENT, seed=-1),
    "seed above": _create(R.INVALID_ARGUMENT, seed=2**53),
    "an environment of another time": _expecting(R.ENVIRONMENT_MISMATCH, dt_s=0.02, horizon_steps=20),
    "an environment of long names": _expecting(R.ENVIRONMENT_MISMATCH, observation_names=["\u00e9" * 200] * 9),
    "an environment without time": _expecting(R.INVALID_ARGUMENT, dt_s=-1.0),
    "an environment of no size": _expecting(R.INVALID_ARGUMENT, observation_dim=-4),
    "a range of nothing": _expecting(R.INVALID_ARGUMENT, healthy_ranges=[{"index": -1, "low": 0.0, "high": 1.0}]),
    "no steps": _submit(R.INVALID_ARGUMENT, observation=np.zeros((0, 4), np.float32)),
    "steps of another shape": _submit(R.INVALID_ARGUMENT, observation=np.zeros((3, 5), np.float32)),
    "rewards of another number": _submit(R.INVALID_ARGUMENT, reward=np.zeros(2, np.float32)),
    "actions beyond the bounds": _submit(R.INVALID_ARGUMENT, action=np.full((3, 2), 9.0, np.float32)),
    "a version that is none": _submit(R.INVALID_ARGUMENT, policy_version=[77]),
    "versions of another number": _submit(R.INVALID_ARGUMENT, policy_version=[0, 0]),
    "an episode below": _submit(R.INVALID_ARGUMENT, episode=-1),
    "an episode above": _submit(R.INVALID_ARGUMENT, episode=2**31),
    "a step above": _submit(R.INVALID_ARGUMENT, first_step=2**31 - 1),
    "other content": _submit(R.TRANSITION_CONFLICT, episode=0, reward=np.full(3, 7.0, np.float32)),
    "an observation too short": _act(R.INVALID_ARGUMENT, OBSERVATION[:3], deterministic=True),
    "an observation that leads nowhere": _act(R.INVALID_ARGUMENT, LARGE, deterministic=True),
    "exploring without a step": _act(R.INVALID_ARGUMENT, OBSERVATION, episode=1),
    "exploring before the beginning": _act(R.INVALID_ARGUMENT, OBSERVATION, episode=1, step=-1),
    "a budget of no time": _act(R.INVALID_ARGUMENT, OBSERVATION, deterministic=True, budget_ms=0.0),
    "a budget of minutes": _act(R.INVALID_ARGUMENT, OBSERVATION, deterministic=True, budget_ms=60_001.0),
    "a budget that is over": _act(R.DEADLINE_EXCEEDED, OBSERVATION, deterministic=True, budget_ms=1e-3),
    "an observation before its time": _act(
        R.INVALID_ARGUMENT, OBSERVATION, deterministic=True, observed_at_unix_us=-1
    ),
    "a limit wider than the environment's": _create(R.INVALID_ARGUMENT, action_limits={"high": [1.5, 2.0]}),
    "limits the wrong way round": _create(R.INVALID_ARGUMENT, action_limits={"low": [0.5, 0.0], "high": [0.0, 1.0]}),
    "limits of another number": _create(R.INVALID_ARGUMENT, action_limits={"low": [0.0], "max_change": [0.1] * 3}),
    "a change of nothing": _create(R.INVALID_ARGUMENT, action_limits={"max_change": [0.1, 0.0]}),
    "an age of nothing": _create(R.INVALID_ARGUMENT, max_observation_age_ms=0.0),
    "an age above": _create(R.INVALID_ARGUMENT, max_observation_age_ms=3_600_001.0),
    "a batch of nothing": Mistake(
        R.INVALID_ARGUMENT, ("POST", "/act/batch"), "ActBatch", pb.ActBatchRequest(), {"requests": []}
    ),
    "a window of nothing": _adapt(R.INVALID_ARGUMENT, last_steps=0),
    "a window before the beginning": _adapt(R.INVALID_ARGUMENT, from_episode=-1),
    "a window that is not": _adapt(R.INVALID_ARGUMENT, all=False),
    "too little data": _adapt(R.INSUFFICIENT_DATA, last_steps=3),
    "no updates": Mistake(
        R.INVALID_ARGUMENT,
        ("POST", "/finetune"),
        "FineTune",
        pb.FineTuneRequest(session_id=SESSION, updates=0),
        {"session_id": SESSION, "updates": 0},
    ),
    "a page too large": Mistake(
        R.INVALID_ARGUMENT,
        ("GET", "/sessions"),
        "ListSessions",
        pb.ListSessionsRequest(page_size=1001),
        query={"page_size": 1001},
    ),
    "a page of nothing known": Mistake(
        R.INVALID_ARGUMENT,
        ("GET", "/sessions"),
        "ListSessions",
        pb.ListSessionsRequest(page_token="!"),
        query={"page_token": "!"},
    ),
    "a key used before": Mistake(
        R.IDEMPOTENCY_KEY_REUSED,
        ("POST", f"/operations/{OPERATION}/cancel"),
        "CancelOperation",
        pb.CancelOperationRequest(operation_id=OPERATION, idempotency_key="used"),
        idempotency_key="used",
    ),
    "a key too long": Mistake(
        R.INVALID_ARGUMENT,
        ("POST", f"/sessions/{SESSION}/pause"),
        "PauseSession",
        pb.PauseSessionRequest(session_id=SESSION, idempotency_key="x" * 256),
        idempotency_key="x" * 256,
    ),
    "what cannot be read": Mistake(R.MALFORMED_REQUEST, ("POST", "/act"), "Act", b"\xff\xff", b'{"session_id"'),
    "too much at once": Mistake(
        R.BODY_TOO_LARGE, ("POST", "/act"), "Act", b"\0" * (MAX_BODY_BYTES + 1), b" " * (MAX_BODY_BYTES + 1)
    ),
    "nothing of that name": Mistake(R.ROUTE_NOT_FOUND, ("GET", "/promises"), "Promise", b""),
    "no key": Mistake(R.UNAUTHENTICATED, ("GET", "/sessions"), "ListSessions", pb.ListSessionsRequest(), key=""),
    "a key that is none": Mistake(
        R.UNAUTHENTICATED, ("GET", "/sessions"), "ListSessions", pb.ListSessionsRequest(), key="odd"
    ),
    "no key, and nothing to read": Mistake(R.UNAUTHENTICATED, ("POST", "/act"), "Act", b"\xff", b"{", key=""),
    "no key, and nothing there": Mistake(R.UNAUTHENTICATED, ("GET", "/promises"), "Promise", b"", key=""),
    "a key too weak": Mistake(
        R.PERMISSION_DENIED,
        ("DELETE", f"/sessions/{SESSION}"),
        "DeleteSession",
        pb.DeleteSessionRequest(session_id=SESSION),
        key="adapt",
    ),
    "a key of another session": Mistake(
        R.PERMISSION_DENIED,
        ("GET", f"/sessions/{SESSION}"),
        "GetSession",
        pb.GetSessionRequest(session_id=SESSION),
        key="elsewhere",
    ),
    "another media type": Mistake(
        R.UNSUPPORTED_MEDIA_TYPE, ("POST", "/adapt"), "", b"", b"\0" * 4, http_alone=True
    ),
    "a slash too many": Mistake(R.ROUTE_NOT_FOUND, ("GET", "/sessions/"), "", b"", http_alone=True),
    "another method": Mistake(R.METHOD_NOT_ALLOWED, ("PUT", "/sessions"), "", b"", b"", http_alone=True),
}  # fmt: skip

ELSEWHERE = {
    R.SESSION_PAUSED: "test_sessions, over both",
    R.OBSERVATION_TOO_OLD: "test_deadlines, over both",
    R.PREVIOUS_ACTION_UNKNOWN: "test_action_limits, over both",
    R.OPERATION_IN_PROGRESS: "test_learning, over both",
    R.NO_EARLIER_VERSION: "test_lineage, over both",
    R.VERSION_PINNED: "test_lineage, over both",
    R.SESSION_CHANGED: "takes a race",
    R.ADAPTATION_FAILED: "below",
    R.CHECKPOINT_CHANGED: "takes other files",
    R.TOO_MANY_CALLS: "test_key_bounds, over both",
    R.TOO_MANY_SESSIONS: "test_key_bounds, over both",
    R.TOO_MANY_FINE_TUNES: "test_key_bounds, over both",
    R.TOO_MUCH_STORED: "test_key_bounds, over both",
    R.PEER_TOO_SLOW: "test_slow_peers, over both",
    R.OVERLOADED: "takes load",
    R.QUEUE_FULL: "takes load",
    R.DRAINING: "takes a service that stops",
    R.STORAGE_UNAVAILABLE: "takes a disk that fails",
    R.CHECKPOINT_UNUSABLE: "takes a damaged file",
    R.VERSION_UNUSABLE: "takes a damaged file",
    R.NOT_ACCEPTABLE: "nothing answers so today",
    R.FINE_TUNE_FAILED: "what an operation ends with, never a call",
    R.INTERNAL: "what no input may lead to",
}
"""Refusals that a request alone does not bring about, and why."""


@pytest.fixture(scope="module")
def channel(fuzzed: Fuzzed) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(fuzzed.server.grpc) as channel:
        yield channel


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_alike(name: str, fuzzed: Fuzzed, channel: grpc.Channel) -> None:
    """Failed on what was so once, row by row: fields named without what they are in, an action that is no number, a
    message too large, bytes that are none, a method that is none, names too long for trailers."""
    mistake = MISTAKES[name]
    if mistake.reason is R.IDEMPOTENCY_KEY_REUSED:
        fuzzed.admin.pause(fuzzed.named(SESSION), "used", CALL_S)
        fuzzed.admin.resume(fuzzed.named(SESSION), "", CALL_S)
    over_http = _over_http(mistake, fuzzed)
    assert over_http.reason is mistake.reason
    if mistake.http_alone:
        return
    over_grpc = _over_grpc(mistake, fuzzed, channel)
    assert over_grpc.type == over_http.type
    assert over_grpc.retry_after_s == over_http.retry_after_s
    assert {_field(path) for path, _ in over_grpc.fields} == {_field(path) for path, _ in over_http.fields}


def test_transitions_that_no_context_fits_are_refused_alike(fuzzed: Fuzzed, channel: grpc.Channel) -> None:
    session = fuzzed.admin.create_session(CHECKPOINT, 0, None, "", CALL_S)
    steps = batch()
    huge = replace(steps, observation=steps.observation * 1e37, next_observation=-steps.next_observation * 1e37)
    fuzzed.admin.submit_transitions(session.id, huge, "", CALL_S)
    message = pb.AdaptRequest(session_id=session.id)
    mistake = Mistake(R.ADAPTATION_FAILED, ("POST", "/adapt"), "Adapt", message, {"session_id": session.id})
    over_http, over_grpc = _over_http(mistake, fuzzed), _over_grpc(mistake, fuzzed, channel)
    assert over_http.reason is R.ADAPTATION_FAILED
    assert over_grpc == over_http


def test_every_reason_has_a_mistake() -> None:
    """Failed when lineage by hand brought four new reasons."""
    made = {mistake.reason for mistake in MISTAKES.values()}
    assert made.isdisjoint(ELSEWHERE)
    assert made | ELSEWHERE.keys() == set(Reason) == RULES.keys()


def _over_http(mistake: Mistake, fuzzed: Fuzzed) -> refusals.Refusal:
    method, path = mistake.http
    for word in (SESSION, OPERATION):
        path = path.replace(word, fuzzed.named(word))
    headers = fuzzed.authorization(mistake.key)
    if mistake.idempotency_key:
        headers["Idempotency-Key"] = mistake.idempotency_key
    body: dict[str, Any] = {}
    if isinstance(mistake.body, bytes):
        kind = "application/octet-stream" if mistake.reason is R.UNSUPPORTED_MEDIA_TYPE else "application/json"
        headers["Content-Type"] = kind
        body["content"] = mistake.body
    elif mistake.body is not None:
        given = mistake.body.get("session_id")
        body["json"] = {**mistake.body, **({"session_id": fuzzed.named(given)} if given else {})}
    with httpx.Client(base_url=fuzzed.server.http, timeout=CALL_S, trust_env=False) as http:
        response = http.request(method, path, headers=headers, params=mistake.query, **body)
    return refusals.of_problem(response.status_code, response.headers, response.json())


def _over_grpc(mistake: Mistake, fuzzed: Fuzzed, channel: grpc.Channel) -> refusals.Refusal:
    payload = mistake.message
    if isinstance(payload, Message):
        copy = type(payload)()
        copy.CopyFrom(payload)
        for name in ("session_id", "operation_id"):
            if name in copy.DESCRIPTOR.fields_by_name:
                setattr(copy, name, fuzzed.named(getattr(copy, name)))
        payload = copy.SerializeToString()
    metadata = [(name.lower(), value) for name, value in fuzzed.authorization(mistake.key).items()]
    call: Any = channel.unary_stream(f"/{SERVICE.full_name}/{mistake.method}", None, None)
    with pytest.raises(grpc.RpcError) as told:
        list(call(payload, metadata=metadata, timeout=CALL_S))
    return refusals.of_rpc(told.value)


def _field(path: str) -> str:
    """A header and a field of the same meaning have the same name, as far as HTTP's habits let them."""
    return path.lower().replace("-", "_")
