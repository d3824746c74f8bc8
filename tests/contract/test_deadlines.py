"""Promise 11 over both transports: an answer comes within the caller's budget, or the declared fallback does.

Here the budget is over before it begins; `tests/promises/test_in_time.py` has what is slow for real.
"""

from __future__ import annotations

import time
from dataclasses import replace

import grpc
import httpx
import numpy as np
import pytest

from mier_client.errors import DeadlineExceeded
from mier_client.transport import ActQuery, Transport
from mier_client.values import Acted, ActingRules, Fallback, FallbackKind, FallbackReason, Session
from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_proto.v1 import adaptation_pb2_grpc as pb_grpc
from tests.contract import refusals, tiny
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, refused, submit
from tests.contract.server import Server

OVER = replace(MEAN, budget_ms=1e-3)
"""A budget that is over before anything can be done."""
KINDS = [kind for kind in FallbackKind if kind is not FallbackKind.UNRECOGNIZED]


def declaring(transport: Transport, kind: FallbackKind | None) -> Session:
    return transport.create_session(REWARD, 7, None, "", CALL_S, ActingRules(fallback=kind))


def held(acted: Acted) -> bool:
    return (acted.policy_version, acted.weights_hash) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_late_is_answered_by_the_declared_fallback(transport: Transport, kind: FallbackKind) -> None:
    """Broken on purpose: without the look at the time before a policy chooses; seen: version 2, and no fallback."""
    session = declaring(transport, kind)
    submit(transport, session, batch(40))
    base = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    transport.adapt(session.id, ALL, "", CALL_S)
    active = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    assert (active.policy_version, active.fallback) == (2, None)
    assert not np.array_equal(active.action, base.action)
    late = transport.act(session.id, OBSERVATION, OVER, CALL_S)
    assert late.fallback == Fallback(kind, FallbackReason.BUSY)
    version, action = {
        FallbackKind.INCUMBENT: (2, active.action),
        FallbackKind.BASE_POLICY: (1, base.action),
        FallbackKind.HOLD_LAST: (0, active.action),
        FallbackKind.HOLD_ZERO: (0, np.zeros(tiny.ACTION_DIM, np.float32)),
    }[kind]
    assert late.policy_version == version
    assert np.array_equal(late.action, action)
    assert held(late) == (late.policy_version == 0)
    patient = transport.act(session.id, OBSERVATION, replace(MEAN, budget_ms=30_000.0), CALL_S)
    assert (patient.policy_version, patient.fallback) == (2, None)
    assert np.array_equal(patient.action, active.action)


def test_nothing_is_held_where_nothing_was_done_yet(transport: Transport) -> None:
    session = declaring(transport, FallbackKind.HOLD_LAST)
    late = transport.act(session.id, OBSERVATION, OVER, CALL_S)
    assert late.fallback == Fallback(FallbackKind.HOLD_ZERO, FallbackReason.BUSY)
    robot = np.array([0.25, -0.5], np.float32)
    late = transport.act(session.id, OBSERVATION, replace(OVER, previous_action=robot), CALL_S)
    assert late.fallback == Fallback(FallbackKind.HOLD_LAST, FallbackReason.BUSY)
    assert np.array_equal(late.action, robot)


def test_a_session_without_a_fallback_refuses_what_is_late(transport: Transport, session: Session) -> None:
    assert session.rules == ActingRules()
    with refused("DEADLINE_EXCEEDED", "budget", "declare a fallback") as told:
        transport.act(session.id, OBSERVATION, OVER, CALL_S)
    assert type(told.value) is DeadlineExceeded
    assert transport.act(session.id, OBSERVATION, MEAN, CALL_S).policy_version == 1


@pytest.mark.parametrize("budget_ms", [0.0, -1.0, 60_001.0])
def test_a_budget_that_is_none_is_refused(transport: Transport, session: Session, budget_ms: float) -> None:
    with refused("INVALID_ARGUMENT", "budget_ms"):
        transport.act(session.id, OBSERVATION, replace(MEAN, budget_ms=budget_ms), CALL_S)


def test_what_is_late_is_still_refused_if_no_policy_could_answer_it(transport: Transport) -> None:
    session = declaring(transport, FallbackKind.HOLD_ZERO)
    with refused("INVALID_ARGUMENT", "observation"):
        transport.act(session.id, OBSERVATION[:3], OVER, CALL_S)
    with refused("INVALID_ARGUMENT", "episode"):
        transport.act(session.id, OBSERVATION, replace(OVER, deterministic=False), CALL_S)
    with refused("SESSION_NOT_FOUND"):
        transport.act("nobody", OBSERVATION, replace(MEAN, budget_ms=30_000.0), CALL_S)


def test_a_key_that_created_a_session_of_other_rules_is_refused(transport: Transport) -> None:
    key = f"rules {type(transport).__name__}"
    rules = ActingRules(fallback=FallbackKind.HOLD_ZERO, max_observation_age_ms=50.0)
    first = transport.create_session(REWARD, 0, None, key, CALL_S, rules)
    assert transport.create_session(REWARD, 0, None, key, CALL_S, rules).id == first.id
    assert transport.get_session(first.id, CALL_S).rules == first.rules == rules
    with refused("IDEMPOTENCY_KEY_REUSED"):
        transport.create_session(REWARD, 0, None, key, CALL_S, replace(rules, fallback=None))


def test_an_exploring_retry_repeats_its_action_whatever_its_budget(transport: Transport) -> None:
    session = declaring(transport, FallbackKind.HOLD_LAST)
    query = ActQuery(False, 3, 0)
    first = transport.act(session.id, OBSERVATION, query, CALL_S)
    transport.act(session.id, OBSERVATION, replace(query, budget_ms=1e-3), CALL_S)
    again = transport.act(session.id, OBSERVATION, replace(query, budget_ms=30_000.0), CALL_S)
    assert np.array_equal(again.action, first.action)


def test_streams_and_batches_keep_budgets(server: Server, http: httpx.Client) -> None:
    """In a batch the smallest budget is that of all: there is one reply."""
    over_grpc = connect(server, "grpc")
    session, plain = declaring(over_grpc, FallbackKind.HOLD_ZERO), declaring(over_grpc, None)
    stream = over_grpc.open_act_stream()
    fallback = Fallback(FallbackKind.HOLD_ZERO, FallbackReason.BUSY)
    assert stream.act(session.id, OBSERVATION, OVER, CALL_S).fallback == fallback
    assert stream.act(session.id, OBSERVATION, MEAN, CALL_S).fallback is None
    with refused("DEADLINE_EXCEEDED"):
        stream.act(plain.id, OBSERVATION, OVER, CALL_S)
    stream.close()
    over_grpc.close()
    asked = [{"session_id": s.id, "observation": OBSERVATION.tolist(), "deterministic": True} for s in (session, plain)]
    asked[1]["budget_ms"] = 1e-3
    late, none = http.post("/act/batch", json={"requests": asked}).raise_for_status().json()["outcomes"]
    assert late["response"]["fallback"] == {"kind": "hold_zero", "reason": "busy"}
    assert none["error"]["reason"] == "DEADLINE_EXCEEDED"
    messages = [
        pb.ActRequest(
            session_id=item["session_id"], observation=encode(OBSERVATION), deterministic=True, budget_ms=1e-3
        )
        for item in asked
    ]
    with grpc.insecure_channel(server.grpc) as channel:
        stub = pb_grpc.AdaptationServiceStub(channel)
        reply = stub.ActBatch(pb.ActBatchRequest(requests=messages), timeout=CALL_S)
    assert reply.outcomes[0].response.fallback.kind == pb.FALLBACK_KIND_HOLD_ZERO
    assert refusals.of_status(reply.outcomes[1].error).reason == "DEADLINE_EXCEEDED"


def test_a_large_batch_of_late_acts_is_answered(server: Server, http: httpx.Client) -> None:
    """More of them than may choose an action on the event loop: the rest hold theirs."""
    transport = connect(server, "http")
    session = declaring(transport, FallbackKind.BASE_POLICY)
    one = {"session_id": session.id, "observation": OBSERVATION.tolist(), "deterministic": True, "budget_ms": 1e-3}
    outcomes = http.post("/act/batch", json={"requests": [one] * 100}).raise_for_status().json()["outcomes"]
    kinds = [outcome["response"]["fallback"]["kind"] for outcome in outcomes]
    assert kinds == ["base_policy"] * 32 + ["hold_last"] * 68
    transport.close()


def test_a_binary_act_has_a_budget_too(session: Session, transport: Transport, http: httpx.Client) -> None:
    session = declaring(transport, FallbackKind.HOLD_ZERO)
    raw = {"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"}
    query = {"session_id": session.id, "deterministic": "true", "budget_ms": "0.001"}
    reply = http.post("/act", params=query, content=OBSERVATION.astype("<f4").tobytes(), headers=raw)
    assert np.frombuffer(reply.content, "<f4").tolist() == [0.0] * tiny.ACTION_DIM
    named = {name: reply.headers[name] for name in ("mier-policy-version", "mier-fallback", "mier-fallback-reason")}
    assert named == {"mier-policy-version": "0", "mier-fallback": "hold_zero", "mier-fallback-reason": "busy"}
    assert 'mier_fallbacks_total{kind="hold_zero",reason="busy"}' in http.get("/metrics").text


def now_us() -> int:
    return time.time_ns() // 1000


def test_an_old_observation_is_refused(transport: Transport) -> None:
    """By the server's clock, which is this machine's. Broken on purpose: without the look; seen: an action."""
    rules = ActingRules(fallback=FallbackKind.HOLD_ZERO, max_observation_age_ms=20_000.0)
    session = transport.create_session(REWARD, 0, None, "", CALL_S, rules)
    fresh = replace(MEAN, observed_at_unix_us=now_us())
    assert transport.act(session.id, OBSERVATION, fresh, CALL_S).policy_version == 1
    for away_s, word in ((-60, "old"), (60, "in the future")):
        stale = replace(MEAN, observed_at_unix_us=now_us() + away_s * 1_000_000)
        with refused("OBSERVATION_TOO_OLD", "20000 ms", word):
            transport.act(session.id, OBSERVATION, stale, CALL_S)
        with refused("OBSERVATION_TOO_OLD"):  # no fallback acts on it either
            transport.act(session.id, OBSERVATION, replace(stale, budget_ms=1e-3), CALL_S)
    with refused("INVALID_ARGUMENT", "observed_at_unix_us"):
        transport.act(session.id, OBSERVATION, MEAN, CALL_S)


def test_without_an_age_no_observation_is_too_old(transport: Transport, session: Session) -> None:
    old = replace(MEAN, observed_at_unix_us=0)
    assert transport.act(session.id, OBSERVATION, old, CALL_S).policy_version == 1
