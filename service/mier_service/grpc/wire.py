"""What happens before a gRPC handler has its message: bytes that are no message, too many of them, none at all, methods
that do not exist, and more calls than may be under way.

gRPC itself answers these without the contract's words (with UNKNOWN and the name of a class, say) or not at all, so
every handler is wrapped on its way to the server:

    bytes ── parse ──► a message, or the ServiceError that says what is wrong with them
    a call of one message    its handler gets it, or the call is refused
    a stream of messages     `Requests` gives them, and raises where one cannot be read; the next one may be fine

How long any of it may take is in `grpc/patience.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from mier_service.access.key_bounds import CallsUnderWay
from mier_service.config import ServeConfig
from mier_service.errors import Reason, ServiceError
from mier_service.grpc.answers import Answers, Rpc, refuse
from mier_service.grpc.patience import NotTaken, Patience

Handler = Any  # grpc.RpcMethodHandler, whose fields the stubs do not type


class Wire(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps handlers (see the header of this file). `open_services` need no key and are never refused for load."""

    def __init__(
        self,
        answers: Answers,
        calls: CallsUnderWay,
        patience: Patience,
        config: ServeConfig,
        open_services: tuple[str, ...],
    ) -> None:
        self._answers = answers
        self._calls = calls
        self._patience = patience
        self._max_calls = config.max_grpc_calls
        self._max_message_bytes = config.max_body_bytes
        self._open_services = open_services
        self._wrapped: dict[str, Handler] = {}
        self._under_way = 0

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], handler_call_details: Any
    ) -> Handler:
        method = str(handler_call_details.method)
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return self._missing(method)
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        service, _, name = method.removeprefix("/").rpartition("/")
        is_open = service in self._open_services
        patience = self._patience
        take = patience.only
        if handler.request_streaming:
            take = patience.each if handler.response_streaming else patience.all
        call = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def tell(rpc: Rpc, error: ServiceError) -> None:
            await (refuse(rpc, error) if is_open else self._answers.none(name, rpc, error))

        async def one(_: Any, rpc: Rpc) -> Any:
            try:
                caller = None if is_open else self._enter(rpc)
                try:
                    return await call(await take(rpc), rpc)
                finally:
                    self._leave(caller)
            except ServiceError as error:
                await tell(rpc, error)

        async def many(_: Any, rpc: Rpc) -> None:
            try:
                caller = None if is_open else self._enter(rpc)
                try:
                    async with aclosing(call(await take(rpc), rpc)) as replies:
                        await patience.give(rpc, replies)
                finally:
                    self._leave(caller)
            except NotTaken as error:  # it was answering, and is counted already
                await refuse(rpc, error)
            except ServiceError as error:
                await tell(rpc, error)

        # Of one message too: that there is none is seen where messages are read.
        wired: tuple[Any, ...] = (self._parser(handler.request_deserializer), handler.response_serializer)
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(one, *wired)
        # Some write their replies themselves, as health's Watch does.
        writes_itself = not inspect.isasyncgenfunction(call)
        return grpc.stream_stream_rpc_method_handler(one if writes_itself else many, *wired)

    def _missing(self, method: str) -> Handler:
        error = ServiceError(
            Reason.ROUTE_NOT_FOUND,
            f"there is no method {method[:200]!r}: mier_proto/v1/adaptation.proto says which there are",
        )

        async def none(_: Any, rpc: Rpc) -> None:
            await self._answers.none("none", rpc, error)

        return grpc.stream_unary_rpc_method_handler(none)

    def _parser(self, parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | ServiceError]:
        def checked(data: bytes) -> Message | ServiceError:
            if len(data) > self._max_message_bytes:
                return ServiceError(
                    Reason.BODY_TOO_LARGE,
                    f"expected a message of at most {self._max_message_bytes} bytes, got more: send fewer "
                    "transitions at once",
                )
            try:
                return parse(data)
            except DecodeError:
                return ServiceError(
                    Reason.MALFORMED_REQUEST,
                    f"expected the message that the method takes, got {len(data)} bytes that are none",
                )

        return checked

    def _enter(self, rpc: Rpc) -> str:
        """Takes a place among the calls under way, and among those of its key: before its message is waited for. The
        caller, to be given to `_leave`."""
        if self._under_way >= self._max_calls:
            raise ServiceError(Reason.OVERLOADED, f"more than {self._max_calls} calls are under way: try again shortly")
        caller = self._answers.enter(rpc)
        self._calls.take(caller)
        self._under_way += 1
        return caller

    def _leave(self, caller: str | None) -> None:
        """None: it took no place."""
        if caller is not None:
            self._under_way -= 1
            self._calls.give_back(caller)
