"""openpi's protocol over a WebSocket, so that robots with `openpi-client` act by a session: one binary frame each way.

    connect ──► 401, 403, 404, 503 as a problem, or accepted: the first frame is the metadata
    frame with an observation ──► frame with a chunk of one action
    what is refused ──► a frame of text that says why, then the end of the connection (1011), as openpi's server does it

Invariants
- The session is named by the path, `/sessions/{id}/openpi`; or, at the path `/` (all that a client which knows a host
  and a port can ask for), by the key, which must be bound to one. A connection never changes its session.
- The same keys as everywhere, looked at again for each frame. openpi's clients send `Authorization: Api-Key KEY`.
- A frame is no larger than a request may be; one is answered before the next is read; connections are counted, and
  each is one of its key's calls under way. Who is slow or dead is let go by `http/websocket.py`, and here, in good
  order, who asks for nothing for `keep_idle_connections_s`.
- It acts, and nothing else: transitions are submitted and learning is asked for over HTTP or gRPC.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import structlog
from starlette.types import Message, Receive, Scope, Send

from mier_service.access.callers import current_caller
from mier_service.access.gate import Gate
from mier_service.access.guarded import GuardedCore
from mier_service.access.key_bounds import CallsUnderWay
from mier_service.access.keys import Scope as KeyScope
from mier_service.acting.acting import ActCall
from mier_service.config import ServeConfig
from mier_service.errors import Reason, ServiceError
from mier_service.http import openpi_messages as messages
from mier_service.http.app import internal_error, request_id_of
from mier_service.http.problems import problem_response
from mier_service.lifecycle import Lifecycle, Phase
from mier_service.offload import BoundedPool
from mier_service.watching.calls import Call, begin
from mier_service.watching.metrics import Metrics

_log = structlog.get_logger(__name__)
_PATH = re.compile(r"(?:/v1)?/sessions/([^/]{1,200})/openpi")
_AT_THE_KEY = ("/", "/v1", "/v1/")
_IDLE, _ENDED, _NOT_ALLOWED = 1000, 1011, 1008
_NOTHING = "mier.nothing"
_UNPACK_ON_LOOP_BYTES = 64 * 1024


class OpenpiEndpoint:
    """An ASGI application for WebSockets."""

    def __init__(
        self,
        core: GuardedCore,
        gate: Gate,
        calls: CallsUnderWay,
        lifecycle: Lifecycle,
        pool: BoundedPool,
        metrics: Metrics,
        config: ServeConfig,
    ) -> None:
        self._core = core
        self._gate = gate
        self._calls = calls
        self._lifecycle = lifecycle
        self._pool = pool
        self._metrics = metrics
        self._max_connections = config.max_openpi_connections
        self._idle_s = config.keep_idle_connections_s
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # what asks to connect
        request_id = request_id_of(scope)
        begin(Call("openpi", request_id, "openpi"))
        self._open += 1
        try:
            # What is sent to a client that is gone raises OSError.
            with suppress(OSError), ExitStack() as held:
                await self._serve(scope, receive, send, request_id, held)
        finally:
            self._open -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str, held: ExitStack) -> None:
        started_s = time.perf_counter()
        try:
            session_id = self._admit(scope)
            held.enter_context(self._calls.place(current_caller()))
            first = messages.metadata(await self._core.sessions.get(session_id))
        except Exception as error:
            await self._calls.turns.of_refusal(current_caller())
            refusal = _refusal(error)
            self._count("connect", refusal, started_s)
            named = {"X-Request-Id": request_id}
            await problem_response(refusal, request_id, named)(scope, receive, send)
            return
        self._count("connect", None, started_s)
        await send({"type": "websocket.accept", "headers": [(b"x-request-id", request_id.encode())]})
        await _send_bytes(send, first)
        while (message := await self._next(receive))["type"] != "websocket.disconnect":
            started_s = time.perf_counter()
            if message["type"] == _NOTHING:
                reason = f"nothing was asked for {self._idle_s:g} s: connect again"
                await send({"type": "websocket.close", "code": _IDLE, "reason": reason})
                return
            try:
                reply = await self._answer(message, session_id)
            except Exception as error:
                refusal = _refusal(error)
                self._count("act", refusal, started_s)
                await _send_text(send, f"{refusal.reason}: {refusal.detail} (request {request_id})")
                code = _NOT_ALLOWED if refusal.rule.http_status in (401, 403) else _ENDED
                await send({"type": "websocket.close", "code": code, "reason": "the frame before says why"})
                return
            self._count("act", None, started_s)
            await _send_bytes(send, reply)

    def _admit(self, scope: Scope) -> str:
        """The session that is meant, by one who may connect."""
        if self._lifecycle.phase is Phase.DRAINING:
            raise _draining()
        if self._open > self._max_connections:
            raise ServiceError(
                Reason.OVERLOADED, f"more than {self._max_connections} robots are connected: try again shortly"
            )
        found = _PATH.fullmatch(scope["path"])
        if found is None and scope["path"] not in _AT_THE_KEY:
            raise ServiceError(
                Reason.ROUTE_NOT_FOUND,
                f"there is no WebSocket at {scope['path'][:200]}: connect to /sessions/ID/openpi, or to / with a key "
                "that is bound to a session",
            )
        self._gate.enter(_bearer(scope))
        if found is not None:
            return found.group(1)
        session_id = self._gate.require(KeyScope.ACT).session_id
        if session_id is None:
            raise ServiceError(
                Reason.INVALID_ARGUMENT,
                "which session? Connect to /sessions/ID/openpi, or here with a key that is bound to a session "
                "(`mierctl keys create --session ID`)",
            )
        return session_id

    async def _next(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self._idle_s):
                return await receive()
        except TimeoutError:
            return {"type": _NOTHING}

    async def _answer(self, message: Message, session_id: str) -> bytes:
        if self._lifecycle.phase is Phase.DRAINING:
            raise _draining()
        data = message.get("bytes")
        if data is None:
            raise ServiceError(Reason.MALFORMED_REQUEST, "expected a binary frame with a msgpack map, got text")
        await self._calls.turns.of_call(current_caller())
        started_s = time.perf_counter()
        action = await self._core.acting.act(await self._unpacked(data, session_id))
        return messages.answer(action, 1000.0 * (time.perf_counter() - started_s))

    async def _unpacked(self, data: bytes, session_id: str) -> ActCall:
        if len(data) <= _UNPACK_ON_LOOP_BYTES:
            return messages.act_call(data, session_id)
        return await self._pool.run(messages.act_call, data, session_id)

    def _count(self, call: str, refusal: ServiceError | None, started_s: float) -> None:
        outcome = "OK" if refusal is None else refusal.reason.value
        self._metrics.answered("openpi", call, outcome, time.perf_counter() - started_s)


def _bearer(scope: Scope) -> Iterator[str]:
    """The Authorization values, with openpi's own word for a key's scheme as everybody else's."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            yield f"Bearer {key}" if scheme.lower() == "api-key" else f"{scheme} {key}"


def _refusal(error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    _log.error("openpi_failed", exc_info=error)
    return internal_error()


def _draining() -> ServiceError:
    return ServiceError(Reason.DRAINING, "the service is stopping: connect again once it is back")


async def _send_bytes(send: Send, data: bytes) -> None:
    await send({"type": "websocket.send", "bytes": data})


async def _send_text(send: Send, text: str) -> None:
    await send({"type": "websocket.send", "text": text})
