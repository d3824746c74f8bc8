"""The least that an HTTP client can be: a socket that stays open, requests made beforehand, complete replies."""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence


class Refused(RuntimeError):
    """A reply that is no success."""


def request(path: str, body: bytes, kind: str, accept: str = "*/*") -> bytes:
    """A POST, whole."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {accept}\r\n"
        f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One request at a time."""

    def __init__(self, port: int) -> None:
        self._got = b""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, asked: bytes) -> bytes:
        """The body of the reply."""
        self.socket.sendall(asked)
        while (body := self.take()) is None:
            pass
        return body

    def take(self) -> bytes | None:
        """Reads what is there; the body, once it is complete."""
        more = self.socket.recv(262_144)
        if not more:
            raise Refused(f"the connection ended after {self._got[:300]!r}")
        self._got += more
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return None
        lower = head.lower()
        place = lower.find(b"content-length:")
        if place < 0:
            raise Refused(f"expected a reply with its length, got {head!r}")
        if len(body) < int(lower[place + 15 :].split(b"\r\n", 1)[0]):
            return None
        self._got = b""
        if head[9:12] != b"200":
            raise Refused(f"{head.decode('latin-1')}\n{body[:500].decode(errors='replace')}")
        return body

    def close(self) -> None:
        self.socket.close()


class Swarm:
    """Many connections, each of which asks again as soon as it is answered."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        """A connection for each of the requests."""
        self._asked = {}
        self._epoll = select.epoll()
        for asked in requests:
            connection = Connection(port)
            self._asked[connection.socket.fileno()] = (connection, asked)
            self._epoll.register(connection.socket, select.EPOLLIN)
        for connection, asked in self._asked.values():
            connection.socket.sendall(asked)

    def replies(self, count: int) -> None:
        """Until so many more have come."""
        asked, poll = self._asked, self._epoll.poll
        while count > 0:
            for number, _ in poll():
                connection, again = asked[number]
                if connection.take() is not None:
                    count -= 1
                    connection.socket.sendall(again)

    def close(self) -> None:
        self._epoll.close()
        for connection, _ in self._asked.values():
            connection.close()
