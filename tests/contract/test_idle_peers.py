"""Peers that live and ask for nothing: what they keep open is ended after a while, and taken up again when they ask."""

from __future__ import annotations

import itertools

import pytest

from mier_client import Client, OperationState, Timeouts
from mier_client.http_transport import HttpTransport
from tests.contract import peers
from tests.contract.conftest import REWARD
from tests.contract.every_call import SERVICE
from tests.contract.helpers import CALL_S, OBSERVATION, waiting_operation
from tests.contract.server import Server

PATIENT = Timeouts(act_s=CALL_S, call_s=CALL_S)


@pytest.fixture
def operation(forgetful: Server) -> str:
    """One that waits for a worker, of which there is none."""
    transport = HttpTransport(forgetful.http)
    operation = waiting_operation(transport, REWARD)
    transport.close()
    return operation


def test_an_idle_connection_is_ended(forgetful: Server) -> None:
    """Over both transports. Broken on purpose: without `max_connection_idle` gRPC keeps it for as long as pings are
    answered; `timeout_keep_alive` of an hour keeps the other."""
    with peers.connect(forgetful.http) as peer:
        peer.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peers.until_ended(peer).startswith(b"HTTP/1.1 200 OK")
    with peers.Http2Peer(forgetful.grpc) as idle:
        assert any(frame.kind == peers.GOAWAY for frame in idle.frames())


def test_a_watch_on_which_nothing_happens_is_ended_whole(forgetful: Server, operation: str) -> None:
    """Over HTTP nothing tells a watcher that stands still from one that reads. Seen to fail without the clock in
    `_events`."""
    with peers.connect(forgetful.http) as peer:
        peer.sendall(f"GET /operations/{operation}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        said = peers.until_ended(peer)
    assert said.count(b"event: operation") == 1
    assert said.endswith(b"\r\n0\r\n\r\n"), said[-200:]


def test_the_client_takes_a_watch_up_again(forgetful: Server, operation: str) -> None:
    """So that the fine-tune of a busy service can be waited for."""
    with Client.connect(forgetful.http, PATIENT) as client:
        seen = list(itertools.islice(client.watch_operation(operation, timeout_s=CALL_S), 3))
    assert [one.state for one in seen] == [OperationState.QUEUED] * 3


def test_an_idle_act_stream_is_ended_and_the_client_acts_on(forgetful: Server) -> None:
    """Seen to fail without the clock in `Requests`. Broken on purpose: the end told as a refusal; the robot's next act
    then failed."""
    with peers.Http2Peer(forgetful.grpc) as stream:
        stream.call(f"/{SERVICE.full_name}/ActStream")
        assert peers.ENDED_WELL in stream.until_answered()

    def ended() -> float:
        return peers.counted(forgetful, "mier_call_seconds_count", 'call="act_stream"', 'outcome="OK"')

    before = ended()
    with Client.connect(f"grpc://{forgetful.grpc}", PATIENT) as client, client.open_act_stream() as acting:
        session = client.create_session(REWARD)
        acting.act(session.id, OBSERVATION, deterministic=True)
        peers.wait_for(lambda: ended() > before)
        assert acting.act(session.id, OBSERVATION, deterministic=True).policy_version == 1


def test_an_idle_stream_of_steps_is_not_acknowledged(forgetful: Server) -> None:
    """A reply would say that all is stored, while the rest was still to come. Broken on purpose: ended as a stream of
    acts is."""
    with peers.Http2Peer(forgetful.grpc) as stream:
        stream.call(f"/{SERVICE.full_name}/SubmitTransitionsStream")
        assert peers.TOO_SLOW in stream.until_answered()
