"""One WebSocket: who keeps the service waiting is let go, and who asks ahead of its turn is bounded.

The WebSocket server alone pings its peers, and holds as many frames as they care to send. Here a peer owes

    a message    in full, `peer_within_s` after its first bytes
    its reading  of what it is sent: it may be behind for `peer_within_s` at a stretch
    an answer    to a ping that comes after two thirds of that time, in the last third of it, or else to be sending

Every connection is looked at `_LOOKS` times in that time, so the end comes up to a quarter of it later. No clock runs
while it is the service that lets the peer wait. How long it may ask for nothing is the business of who answers it
(`http/openpi.py`). Frames are few at a time: those of one message, those that wait for their turn, and pings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from mier_service.http.unsent import Unsent

_LOOKS = 8
_PARSED_AT_ONCE_BYTES = 4096
"""A frame has six bytes at least, so no more than some hundreds are there before it is seen that they are too many."""
_MAX_AHEAD, _MAX_PARTS, _MAX_PINGS = 32, 4096, 64
"""Messages that wait for their turn, frames of one message, and pings between two looks."""

LetGo = Callable[[str], None]


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection; the function `websocket_protocol` makes the class for one service."""

    peer_within_s: float
    on_let_go: LetGo
    on_lost: Callable[[], None]
    """Set by who hands the connection over."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.close_timeout = min(self.close_timeout, self.peer_within_s)
        self._unsent = Unsent(transport)
        self._message_since_s: float | None = None
        """When the message began that is being read; None: none is."""
        self._bytes_since_s: float | None = None
        """When the first bytes came that no frame has come of yet; None: none have."""
        self._heard = False
        """Whether anything came since the last ping."""
        self._pings = 0
        self._next_look = self.loop.call_later(self.peer_within_s / _LOOKS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        for start in range(0, len(data), _PARSED_AT_ONCE_BYTES):
            if self.transport.is_closing():
                return
            if self._bytes_since_s is None:
                self._bytes_since_s = self.loop.time()
            super().data_received(data[start : start + _PARSED_AT_ONCE_BYTES])

    def handle_connect(self, event: Request) -> None:
        self._bytes_since_s = None
        super().handle_connect(event)

    def handle_text(self, event: Frame) -> None:
        self._begin()
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        self._begin()
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        self._bytes_since_s = None
        super().handle_cont(event)
        if len(self.frames) > _MAX_PARTS:
            self._fail(f"expected a message in at most {_MAX_PARTS} frames, got more")

    def handle_ping(self) -> None:
        self._bytes_since_s = None
        self._pings += 1
        if self._pings > _MAX_PINGS:
            self._fail(f"expected at most {_MAX_PINGS} pings within {self.peer_within_s / _LOOKS:g} s, got more")
        else:
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        self._bytes_since_s = None
        super().handle_pong(event)

    def send_receive_event_to_app(self) -> None:
        self._message_since_s = None
        if self.queue.qsize() >= _MAX_AHEAD:
            self._fail(f"expected at most {_MAX_AHEAD} messages ahead of their answers, got more")
            return
        if self.curr_msg_data_type == "text":
            self.frames = [b""]  # it is refused whatever it says, so it need not be UTF-8
        super().send_receive_event_to_app()

    async def send(self, message: ASGISendEvent) -> None:
        if self.transport.is_closing():  # as after a frame that could not be read, while another was being answered
            raise ClientDisconnected
        await super().send(message)

    def send_keepalive_ping(self) -> None:
        self._heard = False
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """No answer to a ping; it may be behind what the peer is sending, or the service does not read now."""
        if self.read_paused or self._heard:
            self._heard = False
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0.0, self.keepalive_timeout)
            return
        self.on_let_go("pong")
        super().keepalive_timeout()

    def _begin(self) -> None:
        self._bytes_since_s = None
        self._message_since_s = self.loop.time()

    def _look(self) -> None:
        """What does the peer owe, and since when?"""
        now_s = self.loop.time()
        self._next_look = self.loop.call_later(self.peer_within_s / _LOOKS, self._look)
        self._pings = 0
        if self._unsent.for_s(now_s) > self.peer_within_s:
            self.on_let_go("answer")
            self._unsent.drop()
            return
        begun_s = min(since for since in (self._message_since_s, self._bytes_since_s, now_s) if since is not None)
        if self.read_paused:
            self._message_since_s = self._message_since_s and now_s
            self._bytes_since_s = self._bytes_since_s and now_s
        elif now_s - begun_s > self.peer_within_s and not self.transport.is_closing():
            self.on_let_go("request")
            self._fail(f"PEER_TOO_SLOW: expected a whole message within {self.peer_within_s:g} s")

    def _fail(self, reason: str) -> None:
        """Ends the connection for what the peer did."""
        self.conn.fail(CloseCode.POLICY_VIOLATION, reason)
        self.handle_parser_exception()


def websocket_protocol(within_s: float, let_go: LetGo) -> type[WebSocketProtocol]:
    """The class that WebSockets are made of; `let_go` is told what a peer owed."""

    class Configured(WebSocketProtocol):
        peer_within_s = within_s
        on_let_go = staticmethod(let_go)
        on_lost = staticmethod(lambda: None)

    return Configured
