"""The robot's own trace goes on through the service: each call carries the W3C trace context that it is made in.

Only where the robot has OpenTelemetry installed and a span under way; nothing has to be configured here.
"""

from __future__ import annotations

from typing import Any

import httpx

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # it is no part of the base install
    TRACED = False
else:
    TRACED = True


def trace_headers() -> dict[str, str]:
    """`traceparent`, and `tracestate` if there is one; nothing outside of any span."""
    carrier: dict[str, str] = {}
    if TRACED and trace.get_current_span().get_span_context().is_valid:
        TraceContextTextMapPropagator().inject(carrier)
    return carrier


def add_trace(request: httpx.Request) -> None:
    """An event hook of httpx."""
    request.headers.update(trace_headers())


async def add_trace_awaited(request: httpx.Request) -> None:
    """The same for its awaited client."""
    add_trace(request)


class TracedChannel:
    """A gRPC channel, each of whose calls carries the trace. Under the one that carries the key (`security`)."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _carrying(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _carrying(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _carrying(self._channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _carrying(self._channel.stream_stream(*args, **kwargs))


def _carrying(call: Any) -> Any:
    def carrying(*args: Any, metadata: tuple[tuple[str, str], ...] = (), **kwargs: Any) -> Any:
        return call(*args, metadata=(*metadata, *trace_headers().items()), **kwargs)

    return carrying
