"""The client: one typed surface over HTTP and gRPC, blocking. `AsyncClient` is the same, awaited.

Invariants
- Every call ends by its deadline (`timeout_s`, or the default of its kind in `Timeouts`), retries included.
- A call that is retried is the same call: a write keeps one idempotency key over all its attempts.
- Nothing is shared but the connection, so one client serves many threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from mier_client.acting import Acting
from mier_client.connecting import address
from mier_client.grpc_transport import GrpcTransport
from mier_client.http_transport import HttpTransport
from mier_client.methods import Blocking, blocking, blocking_pages, blocking_watch
from mier_client.retry import Retrier
from mier_client.security import Tls
from mier_client.surface import Surface, Timeouts, succeeded
from mier_client.transport import Transport
from mier_client.values import Operation


class Client(Blocking):
    """A connection to the service. What each method does, `Surface` tells."""

    def __init__(self, transport: Transport, timeouts: Timeouts | None = None, retrier: Retrier | None = None) -> None:
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
        """`grpc://host:port`, `grpcs://host:port`, `http://host:port` or `https://host[:port]`; with an s: TLS.

        `api_key` is what `mierctl keys create` printed; None: the environment's MIER_API_KEY, if it is set.
        No call is made yet: a service that cannot be reached is told by the first call.
        """
        where = address(url, api_key, tls)
        made = GrpcTransport if where.grpc else HttpTransport
        return cls(made(where.target, where.tls, where.api_key), timeouts, retrier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the connection. Sessions stay."""
        self._transport.close()

    create_session = blocking(Surface.create_session)
    get_session = blocking(Surface.get_session)
    list_sessions = blocking_pages(Surface.list_sessions)
    delete_session = blocking(Surface.delete_session)
    pause = blocking(Surface.pause)
    set_mode = blocking(Surface.set_mode)
    resume = blocking(Surface.resume)

    act = blocking(Surface.act)
    submit_transitions = blocking(Surface.submit_transitions)
    list_transitions = blocking_pages(Surface.list_transitions)

    adapt = blocking(Surface.adapt)
    finetune = blocking(Surface.finetune)
    get_operation = blocking(Surface.get_operation)
    cancel_operation = blocking(Surface.cancel_operation)
    watch_operation = blocking_watch(Surface.watch_operation)
    list_versions = blocking_pages(Surface.list_versions)

    promote = blocking(Surface.promote)
    roll_back = blocking(Surface.roll_back)
    pin = blocking(Surface.pin)
    unpin = blocking(Surface.unpin)
    move = blocking(Surface.move)
    list_promotions = blocking_pages(Surface.list_promotions)

    get_bundle = blocking(Surface.get_bundle)

    live = blocking(Surface.live)
    ready = blocking(Surface.ready)

    @contextmanager
    def open_act_stream(self) -> Iterator[Acting]:
        """For a control loop: `act` on what this yields costs less than `Client.act` where the transport can stream.

        Each stream is for one thread; a broken one is taken up again within the deadline of the act.
        """
        stream = self._transport.open_act_stream()
        try:
            yield Acting(stream, self._surface, self._retrier)
        finally:
            stream.close()

    def wait_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Operation:
        """The operation once it has succeeded; OperationFailed if it ended otherwise."""
        for operation in self.watch_operation(operation_id, timeout_s=timeout_s):
            if succeeded(operation):
                return operation
        raise AssertionError("a watch ends with a final state or an error")
