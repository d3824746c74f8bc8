"""Threads for what must not run on the event loop, with a bounded queue: overload is refused, never piled up.

Callers take turns: while several wait, each gets one thread after another, so that who asks for much waits for its own
calls and not the others for them. No caller may have more than its share of the queue.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from mier_service.access.callers import current_caller
from mier_service.errors import Reason, ServiceError
from mier_service.watching.tracing import span

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class _Job:
    """A call that waits; it runs in its caller's context."""

    caller: str
    work: Callable[[], Any]
    done: asyncio.Future[Any]


class BoundedPool:
    """At most `threads` calls at once and `waiting` more in line, of which one caller may have half (`shared`), or all.
    Belongs to the event loop."""

    def __init__(self, name: str, threads: int, waiting: int, *, shared: bool = True) -> None:
        self.name = name
        self._threads = threads
        self.limit = threads + waiting
        self._share = threads + waiting // 2 if shared else self.limit
        self._lines: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._pending: Counter[str] = Counter()
        self._running = 0
        self._closed = False
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"mier-{name}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result; ServiceError if the line is full (OVERLOADED), or the caller's share of it
        (TOO_MANY_CALLS). A caller that gives up does not stop the call once it runs: what was begun in the store is
        finished or undone there."""
        caller = current_caller()
        self._require_room(caller)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with span(f"pool.{self.name}"):
            context = contextvars.copy_context()
            self._pending[caller] += 1
            work = partial(context.run, function, *args, **kwargs)
            self._lines.setdefault(caller, deque()).append(_Job(caller, work, done))
            self._dispatch()
            return await done

    @property
    def pending(self) -> int:
        """Calls that run or wait."""
        return self._pending.total()

    def close(self) -> None:
        """Waits for what runs; drops what waits."""
        self._closed = True
        self._executor.shutdown(wait=True)

    def _require_room(self, caller: str) -> None:
        if (pending := self._pending.total()) >= self.limit:
            raise ServiceError(
                Reason.OVERLOADED,
                f"{pending} calls are running or waiting for the {self.name} threads, "
                f"at most {self.limit} may: try again shortly",
            )
        if self._pending[caller] >= self._share:
            raise ServiceError(
                Reason.TOO_MANY_CALLS,
                f"{self._pending[caller]} calls with this key are running or waiting for the {self.name} threads, "
                f"at most {self._share} may: wait for one of them",
            )

    def _dispatch(self) -> None:
        """Gives free threads to those who wait, one after another."""
        while self._lines and self._running < self._threads:
            caller, line = self._lines.popitem(last=False)
            job = line.popleft()
            if line:
                self._lines[caller] = line  # behind the others
            if self._closed:
                job.done.cancel()
            if job.done.cancelled():
                self._release(job.caller)
                continue
            self._running += 1
            loop = job.done.get_loop()
            self._executor.submit(job.work).add_done_callback(partial(self._ended, loop, job))

    def _ended(self, loop: asyncio.AbstractEventLoop, job: _Job, result: Future[Any]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._take, job, result)

    def _take(self, job: _Job, result: Future[Any]) -> None:
        self._running -= 1
        self._release(job.caller)
        if not job.done.cancelled():
            if (error := result.exception()) is not None:
                job.done.set_exception(error)
            else:
                job.done.set_result(result.result())
        self._dispatch()

    def _release(self, caller: str) -> None:
        self._pending[caller] -= 1
        if not self._pending[caller]:
            del self._pending[caller]
