"""How many connections the HTTP port has: each is counted from the moment it is accepted, before TLS and any request.

    up to `most`    stay for as long as they like, by all other clocks
    beyond it       may ask once: a probe is answered, whatever else is refused with 503 and Retry-After; then they end
    far beyond it   whoever has waited longest of those makes room for the newest

So a probe gets through as long as it asks sooner than `_WAITING` others connect, though nobody else lets go.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger(__name__)
_WAITING = 64
_ACCEPTED_AT_ONCE = 64
_PAUSE_S = 1.0
"""Until it is tried again where a connection could not be accepted, as without a file descriptor."""


class Place:
    """What a connection counts for, from its acceptance to its end."""

    def __init__(self, connection: socket.socket, beyond: bool, free: Callable[[Place], None]) -> None:
        self.beyond = beyond
        """Whether it came when all places were taken."""
        self._connection = connection
        self._free = free

    def free(self) -> None:
        """The connection has ended."""
        self._free(self)

    def cut(self) -> None:
        """Ends the connection, whatever it is at; TLS, for one, knows of no protocol yet that could be asked."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self._connection.shutdown(socket.SHUT_RDWR)


class Places:
    """Belongs to the event loop."""

    def __init__(self, most: int, on_refused: Callable[[], None]) -> None:
        self._most = most
        self._on_refused = on_refused
        self._within: set[Place] = set()
        self._beyond: dict[Place, None] = {}

    def __len__(self) -> int:
        return len(self._within) + len(self._beyond)

    def take(self, connection: socket.socket) -> Place:
        """For a connection that was accepted just now."""
        place = Place(connection, len(self._within) >= self._most, self._free)
        if not place.beyond:
            self._within.add(place)
            return place
        self._on_refused()
        if len(self._beyond) >= _WAITING:
            oldest = next(iter(self._beyond))
            self._free(oldest)
            oldest.cut()
        self._beyond[place] = None
        return place

    def _free(self, place: Place) -> None:
        self._within.discard(place)
        self._beyond.pop(place, None)


class Door:
    """Accepts connections on a socket that listens already. In uvicorn's eyes, a server of asyncio."""

    def __init__(
        self,
        listener: socket.socket,
        places: Places,
        connect: Callable[[socket.socket, Place], Awaitable[None]],
    ) -> None:
        """`connect` makes a protocol of a connection; where it raises OSError (as TLS that fails does) it is over."""
        self._listener = listener
        self._places = places
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._open()

    def close(self) -> None:
        """Takes no more."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Ends those that had not come so far as to ask for anything."""
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _open(self) -> None:
        self._resume = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.error("cannot_accept", detail=error.strerror)
                self._loop.remove_reader(self._listener)
                self._resume = self._loop.call_later(_PAUSE_S, self._open)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._begin(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _begin(self, connection: socket.socket) -> None:
        place = self._places.take(connection)
        try:
            await self._connect(connection, place)
        except OSError:
            place.free()
        except BaseException:
            place.free()
            raise
