"""Threads for what must not run on the event loop, with a bounded queue: overload is refused, never piled up."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from mier_service.errors import Reason, ServiceError
from mier_service.tracing import span

P = ParamSpec("P")
T = TypeVar("T")


class BoundedPool:
    """At most `threads` calls at once and `waiting` more in line."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self.name = name
        self.limit = threads + waiting
        """As many calls may run and wait."""
        self._pending = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"mier-{name}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result; ServiceError(OVERLOADED) if the line is full. A caller that gives up does not stop
        the call: what was begun in the store is finished or undone there."""
        if self._pending >= self.limit:
            raise ServiceError(
                Reason.OVERLOADED,
                f"{self._pending} calls are running or waiting for the {self.name} threads, "
                f"at most {self.limit} may: try again shortly",
            )
        loop = asyncio.get_running_loop()
        # What the call under way is, its log and its trace go with it.
        with span(f"pool.{self.name}"):
            future = self._executor.submit(contextvars.copy_context().run, partial(function, *args, **kwargs))
            self._pending += 1
            future.add_done_callback(lambda _: self._ended(loop))
            return await asyncio.wrap_future(future)

    @property
    def pending(self) -> int:
        """Calls that run or wait."""
        return self._pending

    def close(self) -> None:
        """Waits for what runs; drops what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._pending -= 1
