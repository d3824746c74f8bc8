"""The client of an event loop: the surface of `Client`, awaited.

Invariants
- Those of `Client`; instead of threads, one client serves many tasks of one event loop.
- A task that is cancelled cancels its call. What the call asked for may have happened all the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Self, cast

from mier_client.acting import AsyncActing
from mier_client.connecting import address
from mier_client.grpc_transport import AsyncGrpcTransport
from mier_client.http_transport import AsyncHttpTransport
from mier_client.methods import Awaiting, awaiting, awaiting_pages, awaiting_watch
from mier_client.retry import Retrier
from mier_client.security import Tls
from mier_client.surface import Surface, Timeouts, succeeded
from mier_client.transport import AsyncTransport
from mier_client.values import Operation


class AsyncClient(Awaiting):
    """A connection to the service. What each method does, `Surface` tells."""

    def __init__(
        self, transport: AsyncTransport, timeouts: Timeouts | None = None, retrier: Retrier | None = None
    ) -> None:
        super().__init__(transport, Surface(transport.calls, timeouts or Timeouts()), retrier or Retrier())
        self._transport = transport

    @classmethod
    def connect(
        cls,
        url: str,
        timeouts: Timeouts | None = None,
        retrier: Retrier | None = None,
        *,
        api_key: str | None = None,
        tls: Tls | None = None,
    ) -> Self:
        """As `Client.connect`, from anywhere; the connection belongs to the event loop of its first call."""
        where = address(url, api_key, tls)
        made = AsyncGrpcTransport if where.grpc else AsyncHttpTransport
        return cls(made(where.target, where.tls, where.api_key), timeouts, retrier)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Lets go of the connection. Sessions stay."""
        await self._transport.close()

    create_session = awaiting(Surface.create_session)
    get_session = awaiting(Surface.get_session)
    list_sessions = awaiting_pages(Surface.list_sessions)
    delete_session = awaiting(Surface.delete_session)
    pause = awaiting(Surface.pause)
    set_mode = awaiting(Surface.set_mode)
    resume = awaiting(Surface.resume)

    act = awaiting(Surface.act)
    submit_transitions = awaiting(Surface.submit_transitions)
    list_transitions = awaiting_pages(Surface.list_transitions)

    adapt = awaiting(Surface.adapt)
    finetune = awaiting(Surface.finetune)
    get_operation = awaiting(Surface.get_operation)
    cancel_operation = awaiting(Surface.cancel_operation)
    watch_operation = awaiting_watch(Surface.watch_operation)
    list_versions = awaiting_pages(Surface.list_versions)

    promote = awaiting(Surface.promote)
    roll_back = awaiting(Surface.roll_back)
    pin = awaiting(Surface.pin)
    unpin = awaiting(Surface.unpin)
    move = awaiting(Surface.move)
    list_promotions = awaiting_pages(Surface.list_promotions)

    get_bundle = awaiting(Surface.get_bundle)

    live = awaiting(Surface.live)
    ready = awaiting(Surface.ready)

    @asynccontextmanager
    async def open_act_stream(self) -> AsyncIterator[AsyncActing]:
        """As `Client.open_act_stream`; each stream is for one task."""
        stream = self._transport.open_act_stream()
        try:
            yield AsyncActing(stream, self._surface, self._retrier)
        finally:
            await stream.close()

    async def wait_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Operation:
        """As `Client.wait_operation`."""
        watch = self.watch_operation(operation_id, timeout_s=timeout_s)
        async with aclosing(cast(AsyncGenerator[Operation, None], watch)) as operations:
            async for operation in operations:
                if succeeded(operation):
                    return operation
        raise AssertionError("a watch ends with a final state or an error")
