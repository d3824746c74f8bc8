"""Peers over gRPC that keep the service waiting, and the real client, stopped in the middle of its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mier_client.grpc_transport import GrpcTransport
from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from tests.contract import peers
from tests.contract.conftest import GRPC_PLACES, REWARD
from tests.contract.every_call import SERVICE
from tests.contract.helpers import CALL_S, MEAN, OBSERVATION
from tests.contract.server import Server

ROBOT = """
import sys
from mier_client import Client
with Client.connect(sys.argv[1]) as client, client.open_act_stream() as acting:
    for line in sys.stdin:
        acted = acting.act(sys.argv[2], [0.3, -0.2, 0.5, 1.0], deterministic=True, timeout_s=30.0)
        print(acted.policy_version, flush=True)
"""


@pytest.fixture
def session_id(impatient: Server) -> str:
    transport = GrpcTransport(impatient.grpc, None)
    made = transport.create_session(REWARD, 0, None, "", CALL_S)
    transport.close()
    return made.id


@pytest.fixture
def act(session_id: str) -> pb.ActRequest:
    return pb.ActRequest(session_id=session_id, observation=encode(OBSERVATION), deterministic=True)


def test_a_connection_has_to_be_begun(impatient: Server) -> None:
    """TCP alone, and HTTP/2 without the settings that begin it. With gRPC's own clocks both were held for a minute.
    Seen to fail without both `server_handshake_timeout_ms` and `ping_timeout_ms`; either is enough."""
    for begun in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with peers.connect(impatient.grpc) as peer:
            peer.sendall(begun)
            peers.until_ended(peer)


@pytest.mark.parametrize("trickle", [b"", b" "], ids=["no message", "a message byte by byte"])
def test_a_message_has_to_come_in_time(impatient: Server, trickle: bytes) -> None:
    """Of a peer that answers gRPC's pings; it held its place for as long as it was watched, minutes. Seen to fail
    without the clock in `Patience.only`."""
    with peers.Http2Peer(impatient.grpc) as peer:
        peer.call(f"/{SERVICE.full_name}/Act", b"\0" + (1000).to_bytes(4))
        assert peers.TOO_SLOW in peer.until_answered(trickle)


def test_a_reply_of_a_stream_has_to_be_taken(impatient: Server, act: pb.ActRequest) -> None:
    """Of peers that answer pings, and have no room for replies: all places were theirs for as long as they lived. Seen
    to fail without the clock in `Patience.give`."""

    labels = ('owed="answer"', 'transport="grpc"')
    before = peers.counted(impatient, "mier_peers_let_go_total", *labels)
    one = peers.message(pb.ActStreamRequest(request=act).SerializeToString())
    transport = GrpcTransport(impatient.grpc, None)
    with ExitStack() as held:
        for _ in range(GRPC_PLACES):
            peer = held.enter_context(peers.Http2Peer(impatient.grpc, window_bytes=0))
            peer.call(f"/{SERVICE.full_name}/ActStream", one)
            peer.live_on()
        peers.wait_for(lambda: peers.counted(impatient, "mier_peers_let_go_total", *labels) == before + GRPC_PLACES)
        assert transport.act(act.session_id, OBSERVATION, MEAN, CALL_S).policy_version == 1
    transport.close()


@pytest.fixture
def robot(impatient: Server, session_id: str) -> Iterator[tuple[subprocess.Popen[str], peers.Relay]]:
    """Acts once for each line that it is told."""
    with peers.Relay(impatient.grpc) as relay:
        command = [sys.executable, "-c", ROBOT, f"grpc://{relay.address}", session_id]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield process, relay
            process.kill()


def test_a_stopped_robot_is_let_go_and_goes_on_when_it_is_continued(
    robot: tuple[subprocess.Popen[str], peers.Relay],
) -> None:
    """SIGSTOP: its kernel answers, it does not. It took 80 s where half a minute was written beside the settings: gRPC
    gives the ping itself a minute. Seen to fail with that option left out."""
    process, relay = robot
    assert process.stdin is not None
    assert process.stdout is not None
    for stopped in (True, False):
        process.stdin.write("act\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1\n"
        if stopped:
            relay.ended.clear()
            os.kill(process.pid, signal.SIGSTOP)
            assert relay.ended.wait(peers.FREED_WITHIN_S), "the service waits for a robot that is stopped"
            os.kill(process.pid, signal.SIGCONT)
