"""Lineage by hand over both transports: promote, roll back, pin; atomic, done once, recorded with who and why."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from mier_client import Client
from mier_client.transport import Page, Transport
from mier_client.values import PromotionKind, PromotionRecord, Session
from mier_service.store.schema import promotions
from mier_service.store.url import open_store
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, acts, batch, fine_tune, refused, submit
from tests.contract.server import Server


@pytest.fixture
def lived(transport: Transport, session: Session) -> Session:
    """Version 1 of the checkpoint, 2 of an adaptation, 3 of a fine-tune."""
    submit(transport, session, batch(40))
    transport.adapt(session.id, ALL, "", CALL_S)
    assert fine_tune(transport, session, updates=5).result_version == 3
    return session


def record(transport: Transport, session: Session) -> list[PromotionRecord]:
    return list(transport.list_promotions(session.id, Page(1000, ""), CALL_S)[0])


def steps(transport: Transport, session: Session) -> list[tuple[str, int, int]]:
    return [(entry.kind.value, entry.from_version, entry.to_version) for entry in record(transport, session)]


def test_a_promoted_version_acts_from_the_reply_on(transport: Transport, lived: Session) -> None:
    """Broken on purpose: without the refresh after the commit, the act after the reply is still version 3's."""
    fresh = transport.create_session(REWARD, 7, None, "", CALL_S)
    first = acts(transport, fresh)
    assert acts(transport, lived)[0] == 3
    assert transport.promote(lived.id, 1, "as it was at first", "", CALL_S).active_version == 1
    assert acts(transport, lived) == first
    assert transport.get_session(lived.id, CALL_S).active_version == 1


def test_rolling_back_undoes_step_by_step(transport: Transport, lived: Session) -> None:
    """Broken on purpose: with the parent instead of what acted before, the first rollback finds nothing."""
    seen = {3: acts(transport, lived)}
    transport.promote(lived.id, 1, "try", "", CALL_S)
    for expected in (3, 2, 1):
        assert transport.roll_back(lived.id, f"back to {expected}", "", CALL_S).active_version == expected
        assert acts(transport, lived)[0] == expected
        if expected in seen:
            assert acts(transport, lived) == seen[expected]
    with refused("NO_EARLIER_VERSION", "version 1", "promote"):
        transport.roll_back(lived.id, "further", "", CALL_S)
    # Learning goes on from what acts; then back is the way it came.
    assert transport.adapt(lived.id, ALL, "", CALL_S).active_version.number == 4
    assert transport.roll_back(lived.id, "again", "", CALL_S).active_version == 1


def test_who_and_why_are_recorded(transport: Transport, lived: Session) -> None:
    transport.promote(lived.id, 2, "steadier", "", CALL_S)
    transport.pin(lived.id, 1, "demonstration at 10", "", CALL_S)
    transport.unpin(lived.id, "demonstration is over", "", CALL_S)
    transport.roll_back(lived.id, "steadier after all", "", CALL_S)
    assert steps(transport, lived) == [
        ("publish", 0, 1),
        ("publish", 1, 2),
        ("publish", 2, 3),
        ("promote", 3, 2),
        ("pin", 2, 1),
        ("unpin", 1, 1),
        ("rollback", 1, 2),
    ]
    entries = record(transport, lived)
    assert [(e.who, e.reason) for e in entries[3:]] == [
        ("anonymous", "steadier"),
        ("anonymous", "demonstration at 10"),
        ("anonymous", "demonstration is over"),
        ("anonymous", "steadier after all"),
    ]
    assert [e.who for e in entries[1:3]] == ["service", "service"]
    assert [e.create_time for e in entries] == sorted(e.create_time for e in entries)


def test_the_record_comes_in_pages(transport: Transport, lived: Session) -> None:
    first, token = transport.list_promotions(lived.id, Page(2, ""), CALL_S)
    rest, end = transport.list_promotions(lived.id, Page(2, token), CALL_S)
    assert [*first, *rest] == record(transport, lived)
    assert (len(first), end) == (2, "")


def test_a_pinned_version_stays(transport: Transport, lived: Session) -> None:
    """Broken on purpose: without `session.pinned` in the worker's publish, version 4 acts."""
    assert transport.pin(lived.id, 2, "known to be safe", "", CALL_S).pinned
    before = acts(transport, lived)
    assert before[0] == 2
    found = transport.adapt(lived.id, ALL, "", CALL_S)
    assert (found.published, found.active_version.number, found.model_context.number) == (False, 2, 2)
    assert fine_tune(transport, lived, updates=5).result_version == 4
    versions, _ = transport.list_versions(lived.id, Page(10, ""), CALL_S)
    assert [(v.number, v.parent) for v in versions] == [(1, 0), (2, 1), (3, 2), (4, 2)]
    assert acts(transport, lived) == before
    with refused("VERSION_PINNED", "version 2", "unpin"):
        transport.promote(lived.id, 3, "no", "", CALL_S)
    with refused("VERSION_PINNED", "version 2", "unpin"):
        transport.roll_back(lived.id, "no", "", CALL_S)
    # A pin may move, and what was published meanwhile may be chosen.
    assert transport.pin(lived.id, 4, "looked at it", "", CALL_S).active_version == 4
    assert acts(transport, lived)[0] == 4
    assert not transport.unpin(lived.id, "go on", "", CALL_S).pinned
    assert acts(transport, lived)[0] == 4
    assert fine_tune(transport, lived, updates=5).result_version == 5
    assert acts(transport, lived)[0] == 5


def test_pinned_without_a_number_the_active_version_stays(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    pinned = transport.pin(session.id, None, "leave it", "", CALL_S)
    assert (pinned.active_version, pinned.pinned) == (1, True)
    assert not transport.adapt(session.id, ALL, "", CALL_S).published
    assert acts(transport, session)[0] == 1
    transport.unpin(session.id, "go on", "", CALL_S)
    assert transport.adapt(session.id, ALL, "", CALL_S).published


def test_asking_for_what_is_so_records_nothing(transport: Transport, lived: Session) -> None:
    before = record(transport, lived)
    transport.promote(lived.id, 3, "it acts already", "", CALL_S)
    transport.unpin(lived.id, "nothing is pinned", "", CALL_S)
    assert record(transport, lived) == before
    transport.pin(lived.id, None, "once", "", CALL_S)
    transport.pin(lived.id, 3, "twice", "", CALL_S)
    assert [entry.reason for entry in record(transport, lived)[len(before) :]] == ["once"]


def test_a_retry_equals_a_single_call(transport: Transport, lived: Session) -> None:
    """Broken on purpose: without the key a second rollback of the same request goes back to version 1."""
    key = uuid.uuid4().hex
    first = transport.roll_back(lived.id, "undo", key, CALL_S)
    again = transport.roll_back(lived.id, "undo", key, CALL_S)
    assert first.active_version == again.active_version == 2
    assert acts(transport, lived)[0] == 2
    assert steps(transport, lived)[-1] == ("rollback", 3, 2)
    with refused("IDEMPOTENCY_KEY_REUSED"):
        transport.roll_back(lived.id, "undo more", key, CALL_S)
    promote, pin, unpin = (uuid.uuid4().hex for _ in range(3))
    transport.promote(lived.id, 3, "p", promote, CALL_S)
    transport.roll_back(lived.id, "r", "", CALL_S)
    assert transport.promote(lived.id, 3, "p", promote, CALL_S).active_version == 3
    assert acts(transport, lived)[0] == 2
    transport.pin(lived.id, 1, "p", pin, CALL_S)
    transport.unpin(lived.id, "u", unpin, CALL_S)
    assert transport.pin(lived.id, 1, "p", pin, CALL_S).pinned
    assert not transport.get_session(lived.id, CALL_S).pinned
    assert not transport.unpin(lived.id, "u", unpin, CALL_S).pinned


def test_a_key_holds_across_transports(server: Server, lived: Session) -> None:
    http, grpc = connect(server, "http"), connect(server, "grpc")
    key = uuid.uuid4().hex
    assert http.pin(lived.id, None, "p", key, CALL_S).pinned
    assert grpc.pin(lived.id, None, "p", key, CALL_S).pinned
    assert [e.kind for e in record(http, lived)].count(PromotionKind.PIN) == 1
    assert record(http, lived) == record(grpc, lived)
    http.close()
    grpc.close()


def test_a_paused_session_can_still_be_rolled_back(transport: Transport, lived: Session) -> None:
    transport.pause(lived.id, "", CALL_S)
    assert transport.roll_back(lived.id, "stumbles", "", CALL_S).active_version == 2
    assert acts(transport, lived)[0] == 2


def test_a_damaged_version_is_not_made_to_act(transport: Transport, lived: Session, server: Server) -> None:
    """Broken on purpose: without the look at the file before the commit, act answers VERSION_UNUSABLE afterwards."""
    versions, _ = transport.list_versions(lived.id, Page(10, ""), CALL_S)
    before = acts(transport, lived)
    transport.promote(lived.id, 1, "away from 3", "", CALL_S)
    steady = acts(transport, lived)
    policies = {path: path.read_bytes() for path in (server.data / "policies").iterdir()}
    of_3 = _policy_of(server, lived, versions[2].number)
    damaged = next(path for path in policies if path.name.startswith(of_3))
    damaged.write_bytes(policies[damaged][:-100])
    try:
        with refused("VERSION_UNUSABLE", "version 3"):
            transport.promote(lived.id, 3, "back", "", CALL_S)
        assert acts(transport, lived) == steady
        assert transport.get_session(lived.id, CALL_S).active_version == 1
        assert steps(transport, lived)[-1] == ("promote", 3, 1)
    finally:
        damaged.write_bytes(policies[damaged])
    transport.promote(lived.id, 3, "mended", "", CALL_S)
    assert acts(transport, lived) == before


def _policy_of(server: Server, session: Session, number: int) -> str:
    query = "SELECT onnx_hash FROM versions WHERE session_id = ? AND number = ?"
    ((found,),) = server.rows(query, session.id, number)
    return str(found)


@pytest.mark.parametrize("reason", ["", "x" * 501])
def test_a_reason_is_asked_for(transport: Transport, session: Session, reason: str) -> None:
    calls: list[Callable[[], Session]] = [
        lambda: transport.promote(session.id, 1, reason, "", CALL_S),
        lambda: transport.roll_back(session.id, reason, "", CALL_S),
        lambda: transport.pin(session.id, None, reason, "", CALL_S),
        lambda: transport.unpin(session.id, reason, "", CALL_S),
        lambda: transport.move(session.id, REWARD, reason, "", CALL_S),
    ]
    for call in calls:
        with refused("INVALID_ARGUMENT", "reason"):
            call()


def test_unknown_names_are_refused(transport: Transport, session: Session) -> None:
    with refused("VERSION_NOT_FOUND", "version 2", session.id):
        transport.promote(session.id, 2, "r", "", CALL_S)
    with refused("VERSION_NOT_FOUND", "version 9"):
        transport.pin(session.id, 9, "r", "", CALL_S)
    with refused("INVALID_ARGUMENT", "version"):
        transport.promote(session.id, 0, "r", "", CALL_S)
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.promote("nobody", 1, "r", "", CALL_S)
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.roll_back("nobody", "r", "", CALL_S)
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.list_promotions("nobody", Page(10, ""), CALL_S)


def test_the_store_itself_refuses_to_change_the_record(transport: Transport, lived: Session, server: Server) -> None:
    store = open_store(server.data, server.store_url, connections=1)
    with pytest.raises(IntegrityError, match="only ever added"), store.write() as c:
        c.execute(update(promotions).where(promotions.c.session_id == lived.id).values(who="somebody"))
    store.close()
    assert [entry.who for entry in record(transport, lived)] == ["anonymous", "service", "service"]


def test_the_client_does_all_of_it(transport: Transport, lived: Session) -> None:
    client = Client(transport)
    assert client.promote(lived.id, 1, reason="a").active_version == 1
    assert client.roll_back(lived.id, reason="b").active_version == 3
    assert client.pin(lived.id, 2, reason="c").pinned
    assert not client.unpin(lived.id, reason="d").pinned
    assert client.move(lived.id, REWARD, reason="it is there already").active_version == 2
    assert [entry.reason for entry in client.list_promotions(lived.id)][3:] == ["a", "b", "c", "d"]
    assert [version.checkpoint for version in client.list_versions(lived.id)] == [REWARD] * 3
