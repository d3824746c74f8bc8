"""The least that a gRPC client can be: bytes made beforehand, bytes read."""

from __future__ import annotations

import queue
from collections.abc import Callable

import grpc


def unary(channel: grpc.Channel, method: str, asked: bytes) -> Callable[[], bytes]:
    """One call each time."""
    call = channel.unary_unary(method)
    return lambda: call(asked)  # type: ignore[no-any-return]


def lockstep(channel: grpc.Channel, method: str, asked: bytes) -> Callable[[], bytes]:
    """One message of one stream each time, and its answer."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    replies = channel.stream_stream(method)(iter(requests.get, None))

    def exchange() -> bytes:
        requests.put(asked)
        return next(replies)  # type: ignore[no-any-return]

    return exchange
