"""Threads for what must not run on the event loop, with a bounded queue: overload is refused, never piled up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from mier_service.errors import Reason, ServiceError

P = ParamSpec("P")
T = TypeVar("T")


class BoundedPool:
    """At most `threads` calls at once and `waiting` more in line."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._name = name
        self._limit = threads + waiting
        self._pending = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"mier-{name}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result; ServiceError(OVERLOADED) if the line is full. A caller that gives up does not stop
        the call: what was begun in the store is finished or undone there."""
        if self._pending >= self._limit:
            raise ServiceError(
                Reason.OVERLOADED,
                f"{self._pending} calls are running or waiting for the {self._name} threads, "
                f"at most {self._limit} may: try again shortly",
            )
        loop = asyncio.get_running_loop()
        future = self._executor.submit(function, *args, **kwargs)
        self._pending += 1
        future.add_done_callback(lambda _: self._ended(loop))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Waits for what runs; drops what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._pending -= 1
