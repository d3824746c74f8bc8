"""Peers over HTTP that keep the service waiting: stopped, slow, or gone. Each is let go, and what it held is free."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from mier_client.http_transport import HttpTransport
from mier_service.errors import Reason
from mier_service.http.server import listen
from tests.contract import peers
from tests.contract.conftest import HTTP_PLACES, REWARD
from tests.contract.helpers import CALL_S, waiting_operation
from tests.contract.server import Server

ASK = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
ASK_AND_GO = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
ASK_MUCH = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'Content-Length: 100000\r\n\r\n{"session_id": '
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"
SMALL_BUFFER_BYTES = 2048


@pytest.mark.parametrize(
    ("begun", "trickle"),
    [
        (b"GET /livez HTTP/1.1\r\nHos", b""),
        (b"GET /livez HTTP/1.1\r\nHos", b"t"),
        (POST % b"/act" + BODY, b""),
        (POST % b"/act" + BODY, b" "),
    ],
    ids=["half a head", "a head byte by byte", "half a body", "a body byte by byte"],
)
def test_a_request_has_to_come_in_time(impatient: Server, begun: bytes, trickle: bytes) -> None:
    """Before there was a clock all of these were held for as long as they were watched, minutes. Broken on purpose: the
    clock started anew by each byte, and those that trickle are held; stopped by the head, and half a body is."""
    with peers.connect(impatient.http) as peer:
        peer.sendall(begun)
        told = peers.problem_in(peers.until_ended(peer, trickle))
    assert told.reason is Reason.PEER_TOO_SLOW
    assert "within 2 s" in told.detail


@pytest.mark.parametrize(
    ("begun", "trickle", "status"),
    [
        (b"", b"", b""),
        (ASK, b"\r\n", b"200"),
        (POST % b"/nowhere" + BODY, b"", b"404"),
        (POST % b"/nowhere" + BODY, b" ", b"404"),
    ],
    ids=["nothing", "blank lines", "half of what is refused", "what is refused, byte by byte"],
)
def test_where_nothing_is_asked_nothing_is_said(impatient: Server, begun: bytes, trickle: bytes, status: bytes) -> None:
    """uvicorn's own clock stops at any byte: all but the half that is refused were held for minutes. Broken on purpose:
    the clock started by the first byte of a request alone, and blank lines are held; stopped by an answer, and half of
    what is refused is."""
    with peers.connect(impatient.http) as peer:
        peer.sendall(begun)
        said = peers.until_ended(peer, trickle)
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [status] * bool(status)


@pytest.mark.parametrize("asks", [400, 20], ids=["more than fits the buffers", "little, and then goodbye"])
def test_an_answer_has_to_be_taken(impatient: Server, asks: int) -> None:
    """Nothing is read. Both were held for minutes, the second although the service had closed it: closing waits until
    all is sent. Seen to fail without the kernel's TCP_USER_TIMEOUT and the service's own look at what is unsent; either
    is enough here."""
    with peers.connect(impatient.http, SMALL_BUFFER_BYTES) as peer:
        peer.setblocking(False)
        with suppress(BlockingIOError):
            peer.sendall(ASK_MUCH * asks)
            peer.sendall(ASK_AND_GO)
        peers.wait_for(lambda: peers.counted(impatient, "mier_http_connections ") > 1)
        peers.wait_for(lambda: peers.counted(impatient, "mier_http_connections ") == 1)  # the one that asks


def test_who_takes_less_than_it_asks_for_is_let_go(impatient: Server) -> None:
    """To the kernel it goes on. Seen to fail without the service's own look, and where it closed instead of resetting:
    closing waits until all is sent."""
    labels = ('owed="answer"', 'transport="http"')
    before = peers.counted(impatient, "mier_peers_let_go_total", *labels)
    with peers.connect(impatient.http, 32 * SMALL_BUFFER_BYTES) as peer:
        peer.setblocking(False)
        with suppress(BlockingIOError):
            peer.sendall(ASK_MUCH * 400)
        peers.until_reset(peer, 8 * SMALL_BUFFER_BYTES)
    assert peers.counted(impatient, "mier_peers_let_go_total", *labels) == before + 1


def test_who_waits_for_the_service_is_not_hurried(impatient: Server) -> None:
    """A watcher that has begun its next request is told all of what it watches; only then is the rest due. Broken on
    purpose: the clock not stopped while the service is at work, and the watch ends in the middle."""
    transport = HttpTransport(impatient.http)
    operation = waiting_operation(transport, REWARD)
    with peers.connect(impatient.http) as watcher, peers.connect(impatient.http) as other:
        watcher.sendall(f"GET /operations/{operation}/events HTTP/1.1\r\nHost: x\r\n\r\nGET /liv".encode())
        other.sendall(b"GET /liv")
        peers.until_ended(other)  # so long it has been by now
        transport.cancel_operation(operation, "", CALL_S)
        watched, _, more = peers.until_ended(watcher).partition(b"\r\n0\r\n\r\n")
    transport.close()
    assert b"cancelled" in watched
    assert peers.problem_in(more).reason is Reason.PEER_TOO_SLOW


def test_the_places_of_slow_peers_come_back(impatient: Server) -> None:
    """Broken on purpose: who serves a request not told that its peer is gone, and the places stay taken."""
    held = [peers.connect(impatient.http) for _ in range(HTTP_PLACES + 1)]
    for peer in held:
        peer.sendall(POST % b"/act" + BODY)
    told = Counter(peers.problem_in(peers.until_ended(peer)).reason for peer in held)
    assert told == {Reason.PEER_TOO_SLOW: HTTP_PLACES, Reason.OVERLOADED: 1}
    for peer in held:
        peer.close()
    with httpx.Client(base_url=impatient.http, trust_env=False, timeout=30.0) as http:
        peers.wait_for(lambda: http.get("/sessions").status_code == 200)


def test_who_hangs_up_on_answers_ahead_of_their_turn_is_no_fault_of_the_service(impatient: Server) -> None:
    """uvicorn tells the request that it read last, not the one that is being answered: a write to a connection that was
    gone, counted as INTERNAL, with a traceback in the log. Seen to fail with `connection_lost` left to it."""
    peer = peers.connect(impatient.http, SMALL_BUFFER_BYTES)
    before = peers.counted(impatient, "mier_call_seconds_count", 'call="openapi"')
    peer.sendall(ASK_MUCH * 100)
    peers.wait_for(lambda: peers.counted(impatient, "mier_call_seconds_count", 'call="openapi"') > before)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a goodbye
    peer.close()
    # It was stuck in the middle of them: one more is over now.
    peers.wait_for(lambda: peers.counted(impatient, "mier_call_seconds_count", 'call="openapi"') > before + 1)
    assert not peers.counted(impatient, "mier_call_seconds_count", 'outcome="INTERNAL"')


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"GET /", b"a" * 65536),
        (b"GET /livez HTTP/1.1\r\nName: ", b"a" * 65536),
        (b"GET /livez HTTP/1.1\r\n", b"Name: value\r\n" * 5000),
        (POST % b"/act" + CHUNKS + b"0\r\n", b"Name: value\r\n" * 5000),
    ],
    ids=["path", "one header", "many headers", "trailers"],
)
def test_a_head_without_end_is_not_kept(impatient: Server, begun: bytes, more: bytes) -> None:
    """A stranger's, too, before any key is asked for: 100 MB of headers took 600 MB. Seen to fail without the limit:
    the service reads on until the time is over."""
    with peers.connect(impatient.http) as peer:
        peer.sendall(begun + more)
        told = peers.problem_in(peers.until_ended(peer, more))
    assert told.reason is Reason.MALFORMED_REQUEST
    assert "65536" in told.detail


def test_the_kernel_asks_for_a_sign_of_life() -> None:
    """Of every connection of the port. Broken on purpose: set after `accept` was asked for once."""
    with listen("127.0.0.1", 0, 30.0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            told = {
                name: connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
                if hasattr(socket, name)
            }
    assert told.pop("TCP_USER_TIMEOUT", 30_000) == 30_000
    assert not told or told["TCP_KEEPIDLE"] + told["TCP_KEEPCNT"] * told["TCP_KEEPINTVL"] == 30


def test_a_peer_whose_network_is_gone_is_let_go(checkpoints: Path, tmp_path: Path) -> None:
    """A watcher, in a network of its own that is then switched off: neither side hears of the other again. Without the
    kernel's questions it was held for as long as it was watched, minutes, and would be for a quarter of an hour."""
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode:
        pytest.skip("needs `ip`, and the right to make a network of one's own")
    command = [*alone, sys.executable, "-m", "tests.contract.cut_off", str(checkpoints), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
