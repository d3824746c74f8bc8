"""One connection over HTTP: what is no HTTP is refused as a problem, and who keeps the service waiting is let go.

The HTTP server alone would refuse in plain words of its own, and wait for as long as a peer likes. Here a peer owes

    a request    in full, `peer_within_s` after its first byte; a new connection's first, after it was made
    its reading  of what was answered: it may be behind for `peer_within_s` at a stretch

and between requests it may stay for as long as uvicorn's own clock has it. A clock for each debt would have to be wound
up at each request; instead every connection is looked at `_LOOKS` times in that time, so the end comes up to a quarter
of it later. No clock runs while it is the service that lets the peer wait.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mier_service.errors import Reason, ServiceError
from mier_service.http.connections import Place
from mier_service.http.problems import MEDIA_TYPE, problem_json
from mier_service.http.unsent import Unsent
from mier_service.http.websocket import WebSocketProtocol

_LOOKS = 8
_MAX_FRAMING_BYTES = 64 * 1024
"""Of a request's head, and of what frames its body: nobody but the parser holds them until they are complete."""


class HttpProtocol(HttpToolsProtocol):
    """One connection; the function `http_protocol` makes the class for one service."""

    peer_within_s: float
    on_let_go: Callable[[str], None]
    place: Place
    """Set by who makes it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._part: Literal["", "head", "body"] = ""
        """What of a request is being read."""
        self._awaited_since_s: float | None = self.loop.time()
        self._unsent = Unsent(transport)
        self._framing_bytes = 0
        self._served: RequestResponseCycle | None = None
        self._next_look = self.loop.call_later(self.peer_within_s / _LOOKS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        # uvicorn tells the request that it read last; where requests came ahead of their turn, another is being served.
        if self._served is not None and not self._served.response_complete:
            self._hang_up(self._served)
        self.pipeline.clear()
        super().connection_lost(exc)
        self.place.free()

    def data_received(self, data: bytes) -> None:
        if self._awaited_since_s is None:
            self._awaited_since_s = self.loop.time()
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > _MAX_FRAMING_BYTES and not self.transport.is_closing():
            self._give_up(Reason.MALFORMED_REQUEST, f"expected at most {_MAX_FRAMING_BYTES} bytes of headers, got more")

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is another protocol's, with a patience of its own."""
        if self.place.beyond:
            self._refuse(no_place())
            return
        self._next_look.cancel()
        super().handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        if isinstance(protocol, WebSocketProtocol):
            protocol.on_lost = self.place.free

    def on_message_begin(self) -> None:
        self._part = "head"
        if self._awaited_since_s is None:  # it came together with the one before
            self._awaited_since_s = self.loop.time()
        super().on_message_begin()
        self.scope["mier.beyond"] = self.place.beyond  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        self._part = "body"
        self._framing_bytes = 0
        super().on_headers_complete()
        if self.place.beyond and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._part = ""
        self._framing_bytes = 0
        self._awaited_since_s = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called where the request cannot be parsed; ends the connection."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            # Another reply of this connection is being sent: nothing can be put into it.
            self.transport.close()
            return
        self._refuse(ServiceError(Reason.MALFORMED_REQUEST, "expected an HTTP request, got bytes that are none"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Callable[..., object]) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def _look(self) -> None:
        """What does the peer owe, and since when?"""
        now_s = self.loop.time()
        self._next_look = self.loop.call_later(self.peer_within_s / _LOOKS, self._look)
        if self._unsent.for_s(now_s) > self.peer_within_s:
            self.on_let_go("answer")
            self._unsent.drop()
            return
        if self._awaited_since_s is None:
            return
        if self.flow.read_paused or self._at_work:
            self._awaited_since_s = now_s
        elif now_s - self._awaited_since_s > self.peer_within_s:
            self._awaited_since_s = None
            self.on_let_go("request")
            self._give_up(
                Reason.PEER_TOO_SLOW,
                f"expected the whole request within {self.peer_within_s:g} s, got a part of it: send it at once, or "
                "less of it",
            )

    @property
    def _at_work(self) -> bool:
        """The service owes an answer to a request that is there in full."""
        return self.cycle is not None and not self.cycle.response_complete and self._part != "body"

    def _give_up(self, reason: Reason, detail: str) -> None:
        """Ends the connection in the middle of a request, and says why if that can be said."""
        if not self._part or self._at_work or (self._part == "body" and self.cycle.response_started):
            self.transport.close()  # nothing was asked, or another answer comes first, or it is answered already
            return
        if self._part == "body":
            self.cycle.scope["mier.let_go"] = reason.value  # type: ignore[typeddict-unknown-key]
            self._hang_up(self.cycle)
        self._refuse(ServiceError(reason, detail))

    def _hang_up(self, cycle: RequestResponseCycle) -> None:
        """Who serves the request learns that nobody is there for the answer."""
        cycle.disconnected = True
        cycle.message_event.set()

    def _refuse(self, error: ServiceError) -> None:
        """In place of an answer; ends the connection."""
        request_id = uuid.uuid4().hex
        body = problem_json(error, request_id).encode()
        status = HTTPStatus(error.rule.http_status)
        again = f"retry-after: {error.rule.retry_after_s}\r\n" if error.rule.retry_after_s is not None else ""
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\n"
            f"{again}"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def no_place() -> ServiceError:
    """What a connection is told for which there is no place."""
    return ServiceError(
        Reason.OVERLOADED, "as many connections as may be are open (--max-connections): try again shortly"
    )


def http_protocol(within_s: float, let_go: Callable[[str], None]) -> type[HttpProtocol]:
    """The class that uvicorn makes connections of; `let_go` is told what a peer owed."""

    class Configured(HttpProtocol):
        peer_within_s = within_s
        on_let_go = staticmethod(let_go)

    return Configured
