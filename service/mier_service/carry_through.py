"""A change in the store, and what must follow it on the event loop: both are done, or neither.

gRPC ends a call's coroutine where its caller gives up (a deadline, a lost connection). The thread that is at the call
cannot be ended; so what it writes must take effect even though nobody waits: the version that it made to act acts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from mier_service.offload import BoundedPool

P = ParamSpec("P")
T = TypeVar("T")

_under_way: set[asyncio.Task[Any]] = set()
"""Event loops hold their tasks weakly."""


class _Abandoned(Exception):
    """The caller gave up before a thread was at the call."""


async def carry_through(
    pool: BoundedPool,
    then: Callable[[T], Awaitable[None]],
    change: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """The result of `change`, made by a thread of the pool, once `then` has been done with it.

    Neither is done where the caller gives up before a thread is at it."""
    lock = threading.Lock()
    begun = abandoned = False

    def begin() -> T:
        nonlocal begun
        with lock:
            if abandoned:
                raise _Abandoned
            begun = True
        return change(*args, **kwargs)

    async def both() -> T:
        result = await pool.run(begin)
        await then(result)
        return result

    task = asyncio.create_task(both())
    _under_way.add(task)
    task.add_done_callback(_ended)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with lock:
            abandoned = not begun
        if abandoned:
            task.cancel()
        raise


def _ended(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # nobody may be waiting when it fails
