"""A network between a robot and a service: one address for good, whatever is behind it, also nothing."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Wire:
    """Passes on to wherever it leads; where it leads nowhere, connections end at once."""

    def __init__(self, target: str) -> None:
        """`target` is `host:port`, or `http://host:port`."""
        self._scheme = "http" if target.startswith("http://") else "grpc"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._target: tuple[str, int] | None = None
        self.lead_to(target)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._listener.close()

    def lead_to(self, target: str) -> None:
        """From the next connection on."""
        host, port = target.removeprefix("http://").split(":")
        with self._lock:
            self._target = (host, int(port))

    def cut(self) -> None:
        """Ends what there is, and leads nowhere."""
        with self._lock:
            self._target = None
            for end in self._ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._ends.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            with self._lock:
                target = self._target
            if target is None:
                return
            with socket.create_connection(target) as far:
                with self._lock:
                    if self._target is not target:
                        return
                    self._ends |= {near, far}
                back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
                back.start()
                _pass_on(near, far)
                back.join()
                with self._lock:
                    self._ends -= {near, far}


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
