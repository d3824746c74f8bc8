"""The service over HTTP, blocking or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from mier_client import http_codec as codec
from mier_client.calls import Call
from mier_client.errors import DeadlineExceeded, Problem, Unavailable
from mier_client.events import Events
from mier_client.http_calls import HttpCall, HttpCalls
from mier_client.replies import require_within
from mier_client.security import Tls, authorization
from mier_client.tracing import TRACED, add_trace, add_trace_awaited
from mier_client.transport import ActStream, AsyncActStream, AsyncTransport, Transport, own

Value = TypeVar("Value")

_SILENCE_S = 60.0
"""A stream of events without a sign of life for so long is dead: the service sends a comment every few seconds."""


class HttpTransport(Transport):
    """A pool of connections to one service."""

    def __init__(self, url: str, tls: Tls | None = None, api_key: str | None = None) -> None:
        """`tls` is for an https URL; None: as the system trusts."""
        super().__init__(HttpCalls())
        hooks = {"request": [add_trace]} if TRACED else {}
        self._http = httpx.Client(**_options(url, tls, api_key), event_hooks=hooks)

    def send(self, call: Call[Value]) -> Value:
        own_call = own(HttpCall, call)
        with _typed_errors():
            if own_call.max_bytes is None:
                response = self._http.request(**own_call.arguments(), timeout=call.timeout_s)
            else:
                with self._http.stream(**own_call.arguments(), timeout=call.timeout_s) as stream:
                    body = bytearray()
                    for part in stream.iter_bytes():
                        body += part
                        require_within(len(body), own_call.max_bytes)
                response = _read(stream, body)
        value: Value = own_call.answer(response)
        return value

    def stream(self, call: Call[Value]) -> Iterator[Value]:
        own_call, events = own(HttpCall, call), Events(time.monotonic() + call.timeout_s)
        with (
            _typed_errors(),
            self._http.stream(**own_call.arguments(), timeout=_patience(call)) as response,
        ):
            if response.is_error:
                response.read()
                raise codec.error_from_response(response)
            for line in response.iter_lines():
                if event := events.line(line):
                    yield _value(own_call, *event)

    def open_act_stream(self) -> ActStream:
        return _CallByCall(self)

    def close(self) -> None:
        self._http.close()


class AsyncHttpTransport(AsyncTransport):
    """A pool of connections to one service, of one event loop."""

    def __init__(self, url: str, tls: Tls | None = None, api_key: str | None = None) -> None:
        """As `HttpTransport`."""
        super().__init__(HttpCalls())
        hooks = {"request": [add_trace_awaited]} if TRACED else {}
        self._http = httpx.AsyncClient(**_options(url, tls, api_key), event_hooks=hooks)

    async def send(self, call: Call[Value]) -> Value:
        own_call = own(HttpCall, call)
        with _typed_errors():
            async with asyncio.timeout(call.timeout_s):
                if own_call.max_bytes is None:
                    response = await self._http.request(**own_call.arguments(), timeout=call.timeout_s)
                else:
                    async with self._http.stream(**own_call.arguments(), timeout=call.timeout_s) as stream:
                        body = bytearray()
                        async for part in stream.aiter_bytes():
                            body += part
                            require_within(len(body), own_call.max_bytes)
                    response = _read(stream, body)
        value: Value = own_call.answer(response)
        return value

    async def stream(self, call: Call[Value]) -> AsyncGenerator[Value, None]:
        own_call, events = own(HttpCall, call), Events(time.monotonic() + call.timeout_s)
        with _typed_errors():
            async with self._http.stream(**own_call.arguments(), timeout=_patience(call)) as response:
                if response.is_error:
                    await response.aread()
                    raise codec.error_from_response(response)
                async for line in response.aiter_lines():
                    if event := events.line(line):
                        yield _value(own_call, *event)

    def open_act_stream(self) -> AsyncActStream:
        return _AsyncCallByCall(self)

    async def close(self) -> None:
        await self._http.aclose()


class _CallByCall(ActStream):
    """HTTP keeps its connection open between calls anyway."""

    def __init__(self, transport: HttpTransport) -> None:
        super().__init__(transport.calls)
        self._transport = transport

    def send(self, call: Call[Value]) -> Value:
        return self._transport.send(call)

    def close(self) -> None:
        """Nothing of its own to let go of."""


class _AsyncCallByCall(AsyncActStream):
    """The same."""

    def __init__(self, transport: AsyncHttpTransport) -> None:
        self._transport = transport

    async def send(self, call: Call[Value]) -> Value:
        return await self._transport.send(call)

    async def close(self) -> None:
        """Nothing of its own to let go of."""


def _options(url: str, tls: Tls | None, api_key: str | None) -> dict[str, Any]:
    headers = {} if api_key is None else {"Authorization": authorization(api_key)}
    return {"base_url": url, "trust_env": False, "verify": tls.http() if tls is not None else True, "headers": headers}


def _read(stream: httpx.Response, body: bytearray) -> httpx.Response:
    """The response with the body that was read of it, which is not encoded any more."""
    headers = [(name, value) for name, value in stream.headers.items() if name != "content-encoding"]
    return httpx.Response(stream.status_code, headers=headers, content=bytes(body), request=stream.request)


def _patience(call: Call[Any]) -> httpx.Timeout:
    return httpx.Timeout(call.timeout_s, read=min(call.timeout_s, _SILENCE_S))


def _value(call: HttpCall[Value], event: str, data: str) -> Value:
    if event == "problem":
        raise codec.error_from_event(data)
    return call.read(data)


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise DeadlineExceeded(Problem("DEADLINE_EXCEEDED", f"no answer in time ({type(error).__name__})")) from error
    except httpx.TransportError as error:
        raise Unavailable(Problem("UNREACHABLE", f"{error or type(error).__name__}")) from error
