"""How long a gRPC call waits for its peer, so that one that is dead, stopped or slow holds no place for long.

    the message of a call    has to be there in full `peer_within_s` after the call began
    a reply of a stream      has to be taken within `peer_within_s`
    a stream of messages     may be silent for `keep_idle_connections_s`

Whether the peer lives at all, and what it owes before there is a call, is looked after by gRPC itself (`options`): a
peer that answers its pings may still keep a call waiting, and one that does not is gone with all its calls. What a peer
has not taken stays with gRPC until its connection ends, which it does when nothing else happens on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, Self, TypeVar

import grpc

from mier_service.access.callers import current_caller
from mier_service.access.turns import Turns
from mier_service.config import ServeConfig
from mier_service.errors import Reason, ServiceError
from mier_service.grpc.answers import Rpc
from mier_service.watching.metrics import Metrics

T = TypeVar("T")
_END: Any = grpc.aio.EOF  # type: ignore[attr-defined]
"""What reading gives where the caller has no more messages."""


class NotTaken(ServiceError):
    """The caller does not take its replies."""


class Requests(Generic[T]):
    """The messages of a stream. ServiceError in the place of one that cannot be read; reading may go on after it.

    Where none comes for `idle_s` they end, as if the caller had said that there are no more, or with `strict` in a
    ServiceError: an answer to all of them would answer for some that are still to come."""

    def __init__(self, rpc: Rpc, turns: Turns, idle_s: float, strict: bool) -> None:
        self._rpc = rpc
        self._turns = turns
        self._idle_s = idle_s
        self._strict = strict

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            async with asyncio.timeout(self._idle_s):
                message = await self._rpc.read()
        except TimeoutError:
            if self._strict:
                raise _too_slow("the next message, or the end of the stream,", self._idle_s) from None
            raise StopAsyncIteration from None
        if message is _END:
            raise StopAsyncIteration
        await self._turns.of_call(current_caller())
        if isinstance(message, ServiceError):
            raise message
        return message  # type: ignore[no-any-return]


class Patience:
    """Reads what calls send and writes what they are answered, each in its time."""

    def __init__(self, metrics: Metrics, turns: Turns, config: ServeConfig) -> None:
        self._metrics = metrics
        self._turns = turns
        self._peer_within_s = config.peer_within_s
        self._idle_s = config.keep_idle_connections_s

    async def each(self, rpc: Rpc) -> Requests[Any]:
        """The messages of a stream that is answered one by one."""
        return Requests(rpc, self._turns, self._idle_s, strict=False)

    async def all(self, rpc: Rpc) -> Requests[Any]:
        """The messages of a stream that is answered once."""
        return Requests(rpc, self._turns, self._idle_s, strict=True)

    async def only(self, rpc: Rpc) -> Any:
        """The message of a call that has one. ServiceError if it has none, none in time, or none that can be read."""
        try:
            async with asyncio.timeout(self._peer_within_s):
                message = await rpc.read()
        except TimeoutError:
            self._metrics.let_go("grpc", "request")
            raise _too_slow("the whole message", self._peer_within_s) from None
        if message is _END:
            raise ServiceError(Reason.MALFORMED_REQUEST, "expected one message, got none")
        if isinstance(message, ServiceError):
            raise message
        return message

    async def give(self, rpc: Rpc, replies: AsyncIterator[Any]) -> None:
        """Each once the one before is taken; `NotTaken` if the caller does not."""
        begun = False
        async for reply in replies:
            if not begun:  # apart from the reply, with which it would get stuck, and no refusal could be sent
                await rpc.send_initial_metadata(())
                begun = True
            try:
                async with asyncio.timeout(self._peer_within_s):
                    await rpc.write(reply)
            except TimeoutError:
                self._metrics.let_go("grpc", "answer")
                raise NotTaken(
                    Reason.PEER_TOO_SLOW, f"expected each reply to be taken within {self._peer_within_s:g} s"
                ) from None


def options(config: ServeConfig) -> list[tuple[str, int]]:
    """gRPC's own clocks."""
    within_ms = round(1000 * config.peer_within_s)
    return [
        # After some silence a peer is asked for a sign of life, and has the rest of its time to give one.
        ("grpc.keepalive_time_ms", within_ms * 2 // 3),
        ("grpc.keepalive_timeout_ms", within_ms // 3),
        # Of the ping that asks: without it gRPC waits a minute, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", within_ms // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.server_handshake_timeout_ms", within_ms),  # of TLS; who does not begin HTTP/2 answers no ping, either
        ("grpc.max_connection_idle_ms", round(1000 * config.keep_idle_connections_s)),
    ]


def _too_slow(what: str, within_s: float) -> ServiceError:
    return ServiceError(Reason.PEER_TOO_SLOW, f"expected {what} within {within_s:g} s: send it at once, or less of it")
