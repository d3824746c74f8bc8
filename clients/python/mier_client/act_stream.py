"""Acting over one gRPC stream: a control loop without the cost of a call per step.

Invariants
- Lockstep: one request, then its reply. A reply that comes after its deadline cannot be taken for the next one's, since
  the stream it came on has been given up by then.
- A stream that broke is opened again by the next attempt. Acting has no effect, so asking again is safe.
- One thread, or one task, at a time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar, cast

import grpc

from mier_client import grpc_codec as codec
from mier_client.calls import Call
from mier_client.errors import DeadlineExceeded, MierError, Problem, ServerFault, Unavailable
from mier_client.grpc_calls import GrpcCall, GrpcCalls
from mier_client.transport import ActStream, AsyncActStream, own
from mier_proto.v1 import adaptation_pb2 as pb

Value = TypeVar("Value")
OpenStream = Callable[[Iterator[pb.ActStreamRequest]], Iterable[pb.ActStreamResponse]]


class GrpcActStream(ActStream):
    """Lockstep over a bidirectional stream, opened at the first act."""

    def __init__(self, open_stream: OpenStream) -> None:
        super().__init__(GrpcCalls())
        self._open_stream = open_stream
        self._link: _Link | None = None

    def send(self, call: Call[Value]) -> Value:
        message = own(GrpcCall, call).message
        if self._link is None:
            self._link = _Link(self._open_stream)
        try:
            outcome = self._link.exchange(pb.ActStreamRequest(request=message), call.timeout_s)
        except BaseException:
            self.close()
            raise
        return call.read(_response(outcome))

    def close(self) -> None:
        """Ends the stream, if there is one."""
        if self._link is not None:
            self._link.close()
            self._link = None


class AsyncGrpcActStream(AsyncActStream):
    """The same, awaited."""

    def __init__(self, open_stream: Callable[[], Any]) -> None:
        """`open_stream` opens one of gRPC's `StreamStreamCall`s."""
        self._open_stream = open_stream
        self._stream: Any = None

    async def send(self, call: Call[Value]) -> Value:
        message = own(GrpcCall, call).message
        if self._stream is None:
            self._stream = self._open_stream()
        try:
            async with asyncio.timeout(call.timeout_s):
                outcome = await _exchange(self._stream, pb.ActStreamRequest(request=message))
        except TimeoutError:
            await self.close()
            raise _late(call.timeout_s) from None
        except grpc.RpcError as error:
            await self.close()
            raise codec.error_from_rpc(error) from error
        except BaseException:
            await self.close()
            raise
        return call.read(_response(outcome))

    async def close(self) -> None:
        """Ends the stream, if there is one."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


async def _exchange(stream: Any, request: pb.ActStreamRequest) -> pb.ActOutcome:
    with suppress(asyncio.InvalidStateError):  # it has ended in the meantime; reading says how
        await stream.write(request)
    reply = await stream.read()
    if not isinstance(reply, pb.ActStreamResponse):  # gRPC's EOF
        raise _ended()
    outcome: pb.ActOutcome = reply.outcome
    return _whole(outcome)


class _Link:
    """One open stream, with a thread that reads it (gRPC offers no deadline for a single message)."""

    def __init__(self, open_stream: OpenStream) -> None:
        self._requests: queue.SimpleQueue[pb.ActStreamRequest | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[pb.ActOutcome | MierError] = queue.SimpleQueue()
        self._stream = open_stream(iter(self._requests.get, None))
        threading.Thread(target=self._read, name="mier-act-stream", daemon=True).start()

    def exchange(self, request: pb.ActStreamRequest, timeout_s: float) -> pb.ActOutcome:
        self._requests.put(request)
        try:
            reply = self._replies.get(timeout=timeout_s)
        except queue.Empty:
            raise _late(timeout_s) from None
        if isinstance(reply, MierError):
            raise reply
        return _whole(reply)

    def close(self) -> None:
        self._requests.put(None)
        cast("grpc.Future[object]", self._stream).cancel()

    def _read(self) -> None:
        try:
            for reply in self._stream:
                self._replies.put(reply.outcome)
            self._replies.put(_ended())
        except grpc.RpcError as error:
            self._replies.put(codec.error_from_rpc(error))


def _response(outcome: pb.ActOutcome) -> pb.ActResponse:
    """The action; a refusal of this one request leaves the stream as it is."""
    if outcome.HasField("error"):
        raise codec.error_from_status(outcome.error)
    return outcome.response


def _whole(outcome: pb.ActOutcome) -> pb.ActOutcome:
    if outcome.WhichOneof("outcome") is None:
        raise ServerFault(Problem("UNEXPECTED_REPLY", "expected an action or an error, got neither"))
    return outcome


def _late(timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(Problem("DEADLINE_EXCEEDED", f"no action within {timeout_s:g} s"))


def _ended() -> Unavailable:
    return Unavailable(Problem("STREAM_ENDED", "the service ended the stream"))
