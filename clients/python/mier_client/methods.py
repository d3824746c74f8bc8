"""Makes methods of plans: the parameters and the docstring are the plan's, the result is what the plan leads to.

create_session = blocking(Surface.create_session)     # (...) -> Session
create_session = awaiting(Surface.create_session)     # (...) -> awaitable of Session
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from mier_client.calls import Page
from mier_client.errors import Overloaded, Unavailable
from mier_client.retry import Retrier, Tries
from mier_client.surface import Pages, Plan, Surface, Watch, ended_early
from mier_client.transport import ActStream, AsyncActStream, AsyncTransport, Transport

P = ParamSpec("P")
Value = TypeVar("Value")
Result = TypeVar("Result", covariant=True)


class Method(Protocol[P, Result]):
    """A method of a client, as type checkers see it."""

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, P], Result]: ...
    @overload
    def __get__(self, client: object, owner: type) -> Callable[P, Result]: ...


class Blocking:
    """What blocking methods stand on."""

    def __init__(self, sender: Transport | ActStream, surface: Surface, retrier: Retrier) -> None:
        self._sender, self._surface, self._retrier = sender, surface, retrier


class Awaiting:
    """What awaited methods stand on."""

    def __init__(self, sender: AsyncTransport | AsyncActStream, surface: Surface, retrier: Retrier) -> None:
        self._sender, self._surface, self._retrier = sender, surface, retrier


def blocking(plan: Callable[Concatenate[Surface, P], Plan[Value]]) -> Method[P, Value]:
    """The value of a call."""

    @wraps(plan)
    def method(self: Blocking, *args: P.args, **kwargs: P.kwargs) -> Value:
        return _do(self, plan(self._surface, *args, **kwargs))

    return cast(Method[P, Value], _signed(method, "{}"))


def blocking_pages(plan: Callable[Concatenate[Surface, P], Pages[Value]]) -> Method[P, Iterator[Value]]:
    """The items of all pages."""

    @wraps(plan)
    def method(self: Blocking, *args: P.args, **kwargs: P.kwargs) -> Iterator[Value]:
        pages, token, more = plan(self._surface, *args, **kwargs), "", True
        while more:
            items, token = _do(self, pages.page(Page(pages.size, token)))
            yield from items
            more = bool(token)

    return cast(Method[P, Iterator[Value]], _signed(method, "Iterator[{}]"))


def blocking_watch(plan: Callable[Concatenate[Surface, P], Watch[Value]]) -> Method[P, Iterator[Value]]:
    """The values of a stream."""

    @wraps(plan)
    def method(self: Blocking, *args: P.args, **kwargs: P.kwargs) -> Iterator[Value]:
        watch = plan(self._surface, *args, **kwargs)
        transport, tries = cast(Transport, self._sender), Tries(self._retrier, watch.timeout_s)
        while True:
            cause: Overloaded | Unavailable = ended_early()
            try:
                for value in transport.stream(watch.attempt(tries.remaining_s())):
                    tries.progressed()
                    yield value
                    if watch.last(value):
                        return
            except (Overloaded, Unavailable) as error:
                cause = error
            self._retrier.sleep(tries.pause_s(cause))

    return cast(Method[P, Iterator[Value]], _signed(method, "Iterator[{}]"))


def awaiting(plan: Callable[Concatenate[Surface, P], Plan[Value]]) -> Method[P, Coroutine[Any, Any, Value]]:
    """The value of a call."""

    @wraps(plan)
    async def method(self: Awaiting, *args: P.args, **kwargs: P.kwargs) -> Value:
        return await _do_async(self, plan(self._surface, *args, **kwargs))

    return cast(Method[P, Coroutine[Any, Any, Value]], _signed(method, "{}"))


def awaiting_pages(plan: Callable[Concatenate[Surface, P], Pages[Value]]) -> Method[P, AsyncIterator[Value]]:
    """The items of all pages."""

    @wraps(plan)
    async def method(self: Awaiting, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Value]:
        pages, token, more = plan(self._surface, *args, **kwargs), "", True
        while more:
            items, token = await _do_async(self, pages.page(Page(pages.size, token)))
            for item in items:
                yield item
            more = bool(token)

    return cast(Method[P, AsyncIterator[Value]], _signed(method, "AsyncIterator[{}]"))


def awaiting_watch(plan: Callable[Concatenate[Surface, P], Watch[Value]]) -> Method[P, AsyncIterator[Value]]:
    """The values of a stream."""

    @wraps(plan)
    async def method(self: Awaiting, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Value]:
        watch = plan(self._surface, *args, **kwargs)
        transport, tries = cast(AsyncTransport, self._sender), Tries(self._retrier, watch.timeout_s)
        while True:
            cause: Overloaded | Unavailable = ended_early()
            try:
                async with aclosing(transport.stream(watch.attempt(tries.remaining_s()))) as values:
                    async for value in values:
                        tries.progressed()
                        yield value
                        if watch.last(value):
                            return
            except (Overloaded, Unavailable) as error:
                cause = error
            await self._retrier.sleep_async(tries.pause_s(cause))

    return cast(Method[P, AsyncIterator[Value]], _signed(method, "AsyncIterator[{}]"))


def _do(client: Blocking, plan: Plan[Value]) -> Value:
    def attempt(remaining_s: float) -> Value:
        return client._sender.send(plan.attempt(remaining_s))

    return client._retrier.call(attempt, plan.timeout_s) if plan.retried else attempt(plan.timeout_s)


async def _do_async(client: Awaiting, plan: Plan[Value]) -> Value:
    def attempt(remaining_s: float) -> Coroutine[Any, Any, Value]:
        return client._sender.send(plan.attempt(remaining_s))

    if not plan.retried:
        return await attempt(plan.timeout_s)
    return await client._retrier.call_async(attempt, plan.timeout_s)


def _signed(method: Callable[..., Any], result: str) -> Callable[..., Any]:
    """The method, whose signature tells what it returns instead of the plan: for `help` and for notebooks."""
    signature = inspect.signature(method)
    _, _, inner = str(signature.return_annotation).partition("[")
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=result.format(inner.removesuffix("]"))
    )
    return method
