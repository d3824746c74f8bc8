"""Peers that nobody should have to wait for: they say a part of something, then little or nothing, or do not listen."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, Self

import httpx

from tests.contract.refusals import Refusal, of_problem
from tests.contract.server import Server

FREED_WITHIN_S = 40.0
"""Twenty times what the servers of these tests are told, and less than any clock that they do not set."""
_TRICKLE_EVERY_S = 0.1
_SEGMENT_BYTES = 1400

DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
"""Frames of HTTP/2 (RFC 9113, 6)."""
END_STREAM, END_HEADERS, ACK = 1, 4, 1
ENDED_WELL, TOO_SLOW = b"grpc-status\x010", b"grpc-status\x014"
"""OK and DEADLINE_EXCEEDED, as the fields that end a call have them: names and values after their lengths."""
_FRAME_HEAD_BYTES = 9
_INITIAL_WINDOW_SIZE = 4


def connect(address: str, receive_buffer_bytes: int | None = None) -> socket.socket:
    """A connection to `host:port`, with or without `http://`."""
    host, port = address.removeprefix("http://").split(":")
    peer = socket.socket()
    if receive_buffer_bytes is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        # As on a network: segments of the loopback's size would wait for room that so small a buffer never has.
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    peer.connect((host, int(port)))
    return peer


def until_ended(peer: socket.socket, trickle: bytes = b"") -> bytes:
    """What the service says until it ends the connection; `trickle` is sent again and again meanwhile."""
    return b"".join(_heard(peer, lambda: peer.sendall(trickle)))


def until_reset(peer: socket.socket, bytes_at_once: int) -> None:
    """Takes so much at a time, until the service ends the connection."""
    for _ in _heard(peer, lambda: None, bytes_at_once):
        select.select([], [], [], _TRICKLE_EVERY_S)


def problem_in(said: bytes) -> Refusal:
    """The problem in an HTTP answer."""
    head, _, body = said.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return of_problem(int(status.split()[1]), headers, json.loads(body))


def counted(server: Server, name: str, *labels: str) -> float:
    """The sum of the samples of one metric that have all these labels, such as `owed="answer"`."""
    text = httpx.get(f"{server.http}/metrics", trust_env=False, timeout=30.0).text
    lines = [line for line in text.splitlines() if line.startswith(name) and all(label in line for label in labels)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def wait_for(condition: Callable[[], bool]) -> None:
    """Of what a server tells only who asks."""
    deadline = time.monotonic() + FREED_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


class Http2Peer:
    """Speaks HTTP/2 by hand and answers pings: it lives, whatever else it does or leaves undone."""

    def __init__(self, address: str, window_bytes: int | None = None) -> None:
        """`window_bytes`: what the service may send of each stream; None: as the protocol has it."""
        self.socket = connect(address)
        settings = b"" if window_bytes is None else _INITIAL_WINDOW_SIZE.to_bytes(2) + window_bytes.to_bytes(4)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(self, path: str, data: bytes = b"", *, end: bool = False) -> None:
        """Begins a call on stream 1, with a part of what is to come."""
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
        fields |= {"te": "trailers", "content-type": "application/grpc"}
        # Literal fields without indexing (RFC 7541, 6.2.2).
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self.socket.sendall(_frame(HEADERS, END_HEADERS, 1, block) + _frame(DATA, END_STREAM * end, 1, data))

    def more(self, data: bytes) -> None:
        self.socket.sendall(_frame(DATA, 0, 1, data))

    def frames(self, trickle: bytes = b"") -> Iterator[Frame]:
        """What the service sends until it ends the connection; `trickle` is sent meanwhile, if there is any."""
        buffered = b""
        for data in _heard(self.socket, lambda: self.more(trickle) if trickle else None):
            buffered += data
            while len(buffered) >= _FRAME_HEAD_BYTES:
                end = _FRAME_HEAD_BYTES + int.from_bytes(buffered[:3])
                if len(buffered) < end:
                    break
                stream = int.from_bytes(buffered[5:9])
                frame = Frame(buffered[3], buffered[4], stream, buffered[_FRAME_HEAD_BYTES:end])
                buffered = buffered[end:]
                if frame.kind in (SETTINGS, PING) and not frame.flags & ACK:
                    with suppress(OSError):
                        self.socket.sendall(_frame(frame.kind, ACK, 0, frame.payload if frame.kind == PING else b""))
                yield frame

    def live_on(self) -> None:
        """Answers pings while the test does something else."""

        def answer() -> None:
            with suppress(OSError, ValueError):  # the test is over, and the socket closed
                for _ in self.frames():
                    pass

        threading.Thread(target=answer, daemon=True).start()

    def until_answered(self, trickle: bytes = b"") -> bytes:
        """The fields that end the call."""
        for frame in self.frames(trickle):
            if frame.kind == HEADERS and frame.flags & END_STREAM:
                return frame.payload
        raise AssertionError("the connection ended before the call")


def message(encoded: bytes) -> bytes:
    """As it stands on a stream of gRPC."""
    return b"\0" + len(encoded).to_bytes(4) + encoded


class Relay:
    """Passes connections on to a server, and tells when one is over; of a peer that does nothing, by the server."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = connect(self._target)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        self.ended.set()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _heard(peer: socket.socket, otherwise: Callable[[], object], bytes_at_once: int = 1 << 16) -> Iterator[bytes]:
    """What comes until the end; while nothing comes, `otherwise` is done."""
    deadline = time.monotonic() + FREED_WITHIN_S
    with suppress(ConnectionError):
        while True:
            if select.select([peer], [], [], _TRICKLE_EVERY_S)[0]:
                data = peer.recv(bytes_at_once)
                if not data:
                    return
                yield data
            else:
                otherwise()
            assert time.monotonic() < deadline, "the service goes on waiting"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
