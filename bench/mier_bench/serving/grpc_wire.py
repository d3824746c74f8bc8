"""The least that a gRPC client can be: bytes made beforehand, bytes read."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import grpc


def unary(channel: grpc.Channel, method: str, asked: bytes) -> Callable[[], bytes]:
    """One call each time."""
    call = channel.unary_unary(method, None, None)
    return lambda: call(asked)


def lockstep(channel: grpc.Channel, method: str, asked: bytes) -> Callable[[], bytes]:
    """One message of one stream each time, and its answer."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    replies: Any = channel.stream_stream(method, None, None)(iter(requests.get, None))

    def exchange() -> bytes:
        requests.put(asked)
        reply: bytes = next(replies)
        return reply

    return exchange
