"""A retry with its key equals a single call, for every write and across transports."""

from __future__ import annotations

import uuid

from mier_client.transport import Page, Transport
from mier_client.values import OperationState, Session, SessionState, Submitted, Window
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, batch, refused, submit, wait
from tests.contract.server import Server


def _key() -> str:
    return uuid.uuid4().hex


def test_create_is_done_once(transport: Transport) -> None:
    key = _key()
    first = transport.create_session(REWARD, 1, None, key, CALL_S)
    assert transport.create_session(REWARD, 1, None, key, CALL_S).id == first.id
    with refused("IDEMPOTENCY_KEY_REUSED", key):
        transport.create_session(REWARD, 2, None, key, CALL_S)


def test_a_key_holds_across_transports(server: Server) -> None:
    key = _key()
    http, grpc = connect(server, "http"), connect(server, "grpc")
    first = http.create_session(REWARD, 1, None, key, CALL_S)
    assert grpc.create_session(REWARD, 1, None, key, CALL_S).id == first.id
    steps = batch(40)
    assert http.submit_transitions(first.id, steps, key + "s", CALL_S) == Submitted(40, 0, 40)
    assert grpc.submit_transitions(first.id, steps, key + "s", CALL_S) == Submitted(40, 0, 40)
    found = http.adapt(first.id, ALL, key + "a", CALL_S)
    again = grpc.adapt(first.id, ALL, key + "a", CALL_S)
    assert again.model_context.number == found.model_context.number == 1
    http.close()
    grpc.close()


def test_submit_replies_as_the_first_time(transport: Transport, session: Session) -> None:
    key = _key()
    assert submit(transport, session, batch(20), key) == Submitted(20, 0, 20)
    assert submit(transport, session, batch(20), key) == Submitted(20, 0, 20)
    with refused("IDEMPOTENCY_KEY_REUSED"):
        submit(transport, session, batch(21), key)
    with refused("IDEMPOTENCY_KEY_REUSED", "SubmitTransitions"):
        transport.pause(session.id, key, CALL_S)


def test_adapt_is_done_once(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    key = _key()
    first = transport.adapt(session.id, ALL, key, CALL_S)
    again = transport.adapt(session.id, ALL, key, CALL_S)
    assert (again.elapsed_ms, again.active_version.number) == (first.elapsed_ms, 2)
    assert len(transport.list_versions(session.id, Page(10, ""), CALL_S)[0]) == 2
    with refused("IDEMPOTENCY_KEY_REUSED"):
        transport.adapt(session.id, Window(last_steps=30), key, CALL_S)


def test_fine_tune_is_done_once(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    key = _key()
    first = transport.finetune(session.id, 5, 0, key, CALL_S)
    assert transport.finetune(session.id, 5, 0, key, CALL_S).id == first.id
    assert wait(transport, first).state is OperationState.SUCCEEDED
    assert transport.finetune(session.id, 5, 0, key, CALL_S).id == first.id
    assert transport.get_session(session.id, CALL_S).active_version == 2


def test_delete_and_pause_are_done_once(transport: Transport, session: Session) -> None:
    pause, delete = _key(), _key()
    transport.pause(session.id, pause, CALL_S)
    transport.resume(session.id, "", CALL_S)
    # The late retry of a pause does not pause again.
    assert transport.pause(session.id, pause, CALL_S).state is SessionState.PAUSED
    assert transport.get_session(session.id, CALL_S).state is SessionState.ACTIVE
    transport.delete_session(session.id, delete, CALL_S)
    transport.delete_session(session.id, delete, CALL_S)


def test_a_refused_call_leaves_its_key_free(transport: Transport, session: Session) -> None:
    key = _key()
    with refused("INSUFFICIENT_DATA"):
        transport.adapt(session.id, ALL, key, CALL_S)
    submit(transport, session, batch(40))
    assert transport.adapt(session.id, ALL, key, CALL_S).published


def test_a_key_that_is_too_long_is_refused(transport: Transport) -> None:
    with refused("INVALID_ARGUMENT"):
        transport.create_session(REWARD, 0, None, "k" * 256, CALL_S)
