"""Who does not take what it is sent: seen by what is unsent, on a connection of either protocol of the HTTP port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

_AT_ONCE = struct.pack("ii", 1, 0)
"""Linger, for no time: whatever is unsent is dropped."""


class Unsent:
    """What one connection has not sent yet, looked at now and then."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._since_s: float | None = None

    def for_s(self, now_s: float) -> float:
        """For how long something has been left at a stretch, as far as looks at it have shown."""
        if not self._transport.get_write_buffer_size():
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        return 0.0 if self._since_s is None else now_s - self._since_s

    def drop(self) -> None:
        """Ends the connection. Closing would wait until all is taken, and what the kernel holds for the peer would
        outlive it."""
        with contextlib.suppress(OSError):  # it may be gone by itself
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._transport.abort()
