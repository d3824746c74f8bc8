"""The service over gRPC, blocking or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from mier_client import grpc_codec as codec
from mier_client.act_stream import AsyncGrpcActStream, GrpcActStream
from mier_client.calls import Call
from mier_client.grpc_calls import GrpcCall, GrpcCalls
from mier_client.security import KeyedChannel, Tls, authorization
from mier_client.tracing import TRACED, TracedChannel
from mier_client.transport import ActStream, AsyncActStream, AsyncTransport, Transport, own
from mier_proto.v1.adaptation_pb2_grpc import AdaptationServiceStub

Value = TypeVar("Value")

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # The client retries by itself, under one deadline and one idempotency key.
    ("grpc.enable_retries", 0),
    # A service that restarts is found again in fractions of a second, not after gRPC's default minute.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class GrpcTransport(Transport):
    """One channel to one service."""

    def __init__(self, target: str, tls: Tls | None, api_key: str | None = None) -> None:
        """`tls` None: plain text."""
        super().__init__(GrpcCalls())
        self._channel = (
            grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
            if tls is None
            else grpc.secure_channel(target, tls.grpc(), options=_CHANNEL_OPTIONS)
        )
        self._stubs = _Stubs(self._channel, api_key)

    def send(self, call: Call[Value]) -> Value:
        own_call = own(GrpcCall, call)
        with _typed_errors():
            reply = self._stubs.method(own_call)(own_call.message, timeout=call.timeout_s)
        return call.read(reply)

    def stream(self, call: Call[Value]) -> Iterator[Value]:
        own_call = own(GrpcCall, call)
        with _typed_errors():
            replies = self._stubs.method(own_call)(own_call.message, timeout=call.timeout_s)
            try:
                for reply in replies:
                    yield call.read(reply)
            finally:
                cast("grpc.Future[object]", replies).cancel()

    def open_act_stream(self) -> ActStream:
        return GrpcActStream(self._stubs.of(AdaptationServiceStub).ActStream)

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport(AsyncTransport):
    """One channel to one service, of the event loop in which it is first used."""

    def __init__(self, target: str, tls: Tls | None, api_key: str | None = None) -> None:
        """As `GrpcTransport`."""
        super().__init__(GrpcCalls())
        if api_key is not None:
            authorization(api_key)  # told here, not by the first call
        self._target, self._api_key = target, api_key
        self._credentials = None if tls is None else tls.grpc()

    async def send(self, call: Call[Value]) -> Value:
        own_call = own(GrpcCall, call)
        with _typed_errors():
            reply = await self._stubs.method(own_call)(own_call.message, timeout=call.timeout_s)
        return call.read(reply)

    async def stream(self, call: Call[Value]) -> AsyncGenerator[Value, None]:
        own_call = own(GrpcCall, call)
        with _typed_errors():
            replies = self._stubs.method(own_call)(own_call.message, timeout=call.timeout_s)
            try:
                async for reply in replies:
                    yield call.read(reply)
            finally:
                replies.cancel()

    def open_act_stream(self) -> AsyncActStream:
        return AsyncGrpcActStream(lambda: self._stubs.of(AdaptationServiceStub).ActStream())

    async def close(self) -> None:
        if "_channel" in self.__dict__:
            await self._channel.close(grace=None)

    # A channel belongs to an event loop, so it is made where one runs: at the first call.

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=_CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(self._target, self._credentials, options=_CHANNEL_OPTIONS)

    @cached_property
    def _stubs(self) -> _Stubs:
        return _Stubs(self._channel, self._api_key)


class _Stubs:
    """The stubs of one channel; each call of theirs carries the key."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel, api_key: str | None) -> None:
        calls: Any = TracedChannel(channel) if TRACED else channel
        self._channel: Any = calls if api_key is None else KeyedChannel(calls, authorization(api_key))
        self._made: dict[type[Any], Any] = {}

    def of(self, stub: type[Any]) -> Any:
        if stub not in self._made:
            self._made[stub] = stub(self._channel)
        return self._made[stub]

    def method(self, call: GrpcCall[Any]) -> Any:
        return getattr(self.of(call.stub), call.method)


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise codec.error_from_rpc(error) from error
