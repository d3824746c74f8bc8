"""Peers over a WebSocket that keep the service waiting, or ask for more than they wait for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from mier_client.http_transport import HttpTransport
from tests.contract import peers
from tests.contract.conftest import OPENPI_PLACES, REWARD
from tests.contract.helpers import CALL_S, OBSERVATION
from tests.contract.server import Server

ACT = msgpack.packb({"observation": OBSERVATION.tolist()})
ROBOT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], compression=None, proxy=None) as connection:
    print(connection.recv()[:0].decode(), flush=True)
    sys.stdin.readline()
"""


def path(server: Server) -> str:
    """Where a new session acts."""
    with closing(HttpTransport(server.http)) as transport:
        return f"/sessions/{transport.create_session(REWARD, 0, None, '', CALL_S).id}/openpi"


def url(server: Server) -> str:
    return server.http.replace("http", "ws", 1) + path(server)


@contextmanager
def alive(server: Server) -> Iterator[ClientConnection]:
    """Answers pings by itself, whatever else it does; its first frame has been read."""
    with connect(url(server), compression=None, proxy=None, ping_interval=None, close_timeout=0.1) as connection:
        connection.recv(CALL_S)
        yield connection


def frame(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def let_go(server: Server, owed: str) -> float:
    return peers.counted(server, "mier_peers_let_go_total", f'owed="{owed}"', 'transport="openpi"')


@contextmanager
def half_open(server: Server) -> Iterator[socket.socket]:
    """Connected, and does nothing that it is not told to."""
    head = f"GET {path(server)} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    with peers.connect(server.http) as peer:
        peer.sendall(head.encode())
        assert peer.recv(12) == b"HTTP/1.1 101"
        yield peer


@pytest.fixture
def silent(impatient: Server) -> Iterator[socket.socket]:
    with half_open(impatient) as peer:
        yield peer


@pytest.mark.parametrize(
    ("begun", "trickle", "owed"),
    [
        (b"", b"", "pong"),
        (frame(Opcode.BINARY, bytes(100))[:20], b"", "pong"),
        (frame(Opcode.BINARY, bytes(10_000))[:20], b"\0", "request"),
    ],
    ids=["nothing", "half a frame", "a frame byte by byte"],
)
def test_who_gives_no_sign_of_life_is_let_go(impatient: Server, begun: bytes, trickle: bytes, owed: str) -> None:
    """Of a half-open connection nothing more is heard than of these."""
    before = let_go(impatient, owed)
    with half_open(impatient) as silent:
        silent.sendall(begun)
        peers.until_ended(silent, trickle)
    assert let_go(impatient, owed) == before + 1


def test_a_message_in_parts_has_to_come_in_time(impatient: Server) -> None:
    """Of a peer that answers pings between the parts."""
    ended = threading.Event()

    def parts() -> Iterator[bytes]:
        while not ended.wait(0.1):
            yield b"\0"

    def send() -> None:
        with suppress(ConnectionClosed):
            robot.send(parts())

    with alive(impatient) as robot:
        sending = threading.Thread(target=send)
        sending.start()
        with pytest.raises(ConnectionClosed, match="PEER_TOO_SLOW: expected a whole message within 2 s"):
            robot.recv(peers.FREED_WITHIN_S)
        ended.set()
        sending.join()


def test_who_lives_and_asks_for_nothing_stays_for_a_while(impatient: Server, forgetful: Server) -> None:
    """Longer than others have to answer a ping, but not for ever."""
    with alive(impatient) as robot, peers.connect(impatient.http) as other:
        peers.until_ended(other)  # so long it has been by now
        robot.send(ACT)
        assert msgpack.unpackb(robot.recv(CALL_S))["policy_version"] == 1
    with alive(forgetful) as robot, pytest.raises(ConnectionClosedOK, match="nothing was asked for 2 s: connect again"):
        robot.recv(peers.FREED_WITHIN_S)


def test_a_stopped_robot_is_let_go(impatient: Server) -> None:
    """SIGSTOP: its kernel answers, it does not."""
    with peers.Relay(impatient.http) as relay:
        address = url(impatient).replace(impatient.http.removeprefix("http://"), relay.address)
        command = [sys.executable, "-c", ROBOT, address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "\n"
            os.kill(process.pid, signal.SIGSTOP)
            assert relay.ended.wait(peers.FREED_WITHIN_S), "the service waits for a robot that is stopped"
            process.kill()


def connected(address: str) -> bool:
    """Whether there was a place."""
    with suppress(InvalidStatus), connect(address, compression=None, proxy=None):
        return True
    return False


def test_the_places_of_dead_robots_come_back(impatient: Server) -> None:
    """All places, and then one again."""
    address = url(impatient)
    with ExitStack() as held:
        for _ in range(OPENPI_PLACES):
            held.enter_context(half_open(impatient))
        assert not connected(address)
        peers.wait_for(lambda: connected(address))


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (frame(Opcode.BINARY, ACT) * 2000, b"at most 32 messages"),
        (frame(Opcode.PING) * 2000, b"at most 64 pings"),
        (frame(Opcode.BINARY, b"", False) + frame(Opcode.CONT, b"", False) * 5000, b"at most 4096 frames"),
    ],
    ids=["messages", "pings", "parts"],
)
def test_frames_are_bounded(impatient: Server, silent: socket.socket, frames: bytes, expected: bytes) -> None:
    """The server keeps what comes, however much it is, and answers each ping."""
    silent.sendall(frames)
    said = peers.until_ended(silent)
    assert expected in said


def test_some_may_be_asked_ahead(impatient: Server) -> None:
    with alive(impatient) as robot:
        for _ in range(20):
            robot.send(ACT)
            robot.ping()
        assert [msgpack.unpackb(robot.recv(CALL_S))["policy_version"] for _ in range(20)] == [1] * 20


def test_text_that_is_none_is_refused_as_text_is(impatient: Server, silent: socket.socket) -> None:
    """uvicorn logs it with a traceback."""
    silent.sendall(frame(Opcode.TEXT, b"\xff"))
    said = peers.until_ended(silent)
    assert b"expected a binary frame with a msgpack map, got text" in said
    assert "Traceback" not in impatient.log()
