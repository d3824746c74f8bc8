"""Acting over one gRPC stream: a control loop without the cost of a call per step.

Invariants
- Lockstep: one request, then its reply. A reply that comes after its deadline cannot be taken for the next one's, since
  the stream it came on has been given up by then.
- A stream that broke is opened again by the next attempt. Acting has no effect, so asking again is safe.
- One thread at a time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import grpc

from mier_client import grpc_codec as codec
from mier_client.errors import DeadlineExceeded, MierError, Problem, ServerFault, Unavailable
from mier_client.values import Acted
from mier_proto.v1 import adaptation_pb2 as pb

OpenStream = Callable[[Iterator[pb.ActStreamRequest]], Iterable[pb.ActStreamResponse]]


class GrpcActStream:
    """Lockstep over a bidirectional stream, opened at the first act."""

    def __init__(self, open_stream: OpenStream) -> None:
        self._open_stream = open_stream
        self._link: _Link | None = None

    def act(self, request: pb.ActRequest, timeout_s: float) -> Acted:
        """One attempt."""
        if self._link is None:
            self._link = _Link(self._open_stream)
        try:
            outcome = self._link.exchange(pb.ActStreamRequest(request=request), timeout_s)
        except MierError:
            self.close()
            raise
        if outcome.HasField("error"):
            raise codec.error_from_status(outcome.error)
        return codec.acted(outcome.response)

    def close(self) -> None:
        """Ends the stream, if there is one."""
        if self._link is not None:
            self._link.close()
            self._link = None


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
            raise DeadlineExceeded(Problem("DEADLINE_EXCEEDED", f"no action within {timeout_s:g} s")) from None
        if isinstance(reply, MierError):
            raise reply
        if reply.WhichOneof("outcome") is None:
            raise ServerFault(Problem("UNEXPECTED_REPLY", "expected an action or an error, got neither"))
        return reply

    def close(self) -> None:
        self._requests.put(None)
        cast("grpc.Future[object]", self._stream).cancel()

    def _read(self) -> None:
        try:
            for reply in self._stream:
                self._replies.put(reply.outcome)
            self._replies.put(Unavailable(Problem("STREAM_ENDED", "the service ended the stream")))
        except grpc.RpcError as error:
            self._replies.put(codec.error_from_rpc(error))
