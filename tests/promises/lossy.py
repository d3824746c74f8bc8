"""A proxy that loses answers: the request gets through, and the connection breaks when the answer begins to come."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_HEADERS = 1
"""The HTTP/2 frame that begins an answer (RFC 9113, 6.2); settings and window updates come before it."""
_FRAME_HEAD_BYTES = 9


class LossyProxy:
    """Every connection to `address` is passed on to the target; no answer ever comes back."""

    def __init__(self, target: str) -> None:
        """`target` is `host:port`, with or without `http://`; with it, HTTP/1.1 is spoken, without it gRPC."""
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._plain = target.startswith("http://")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lost = threading.Semaphore(0)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        if self._plain:
            self.address = f"http://{self.address}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def lost_one(self, within_s: float) -> bool:
        """Waits until an answer was lost."""
        return self._lost.acquire(timeout=within_s)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                threading.Thread(target=self._requests, args=(near, far), daemon=True).start()
                threading.Thread(target=self._answers, args=(near, far), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(1 << 16):
                far.sendall(data)

    def _answers(self, near: socket.socket, far: socket.socket) -> None:
        buffered = b""
        with suppress(OSError):
            while data := far.recv(1 << 16):
                buffered += data
                if self._plain or self._answer_begins(buffered):
                    self._lost.release()
                    break
                near.sendall(data)
        for end in (near, far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _answer_begins(self, stream: bytes) -> bool:
        start = 0
        while start + _FRAME_HEAD_BYTES <= len(stream):
            if stream[start + 3] == _HEADERS:
                return True
            start += _FRAME_HEAD_BYTES + int.from_bytes(stream[start : start + 3], "big")
        return False
