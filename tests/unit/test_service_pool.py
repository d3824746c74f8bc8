"""The pools in front of store, adaptation and decoding: callers take turns, and none has the whole line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from mier_service.access.callers import current_caller, set_caller
from mier_service.errors import Reason, ServiceError
from mier_service.offload import BoundedPool


class Gate:
    """The pool's only thread, kept busy until it is opened."""

    def __init__(self, pool: BoundedPool) -> None:
        self._pool = pool
        self._open, self.busy = threading.Event(), threading.Event()

    def hold(self) -> asyncio.Task[Any]:
        return ask("somebody", self._pool.run(self._wait))

    def open(self) -> None:
        self._open.set()

    def _wait(self) -> None:
        self.busy.set()
        assert self._open.wait(20.0)


@pytest.fixture
def pool() -> Iterator[BoundedPool]:
    made = BoundedPool("store", 1, 8)
    yield made
    made.close()


def ask(caller: str, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """The call, as a request of that caller."""
    context = copy_context()
    context.run(set_caller, caller)
    return asyncio.get_running_loop().create_task(call, context=context)


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20.0))


async def held(gate: Gate) -> asyncio.Task[Any]:
    task = gate.hold()
    await asyncio.to_thread(gate.busy.wait, 20.0)
    return task


async def settled(tasks: list[asyncio.Task[Any]]) -> None:
    """All of them have been put into line."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def test_callers_take_turns(pool: BoundedPool) -> None:
    """Each call knows its caller where it runs. Broken on purpose: as one line for all, the other is last."""
    order: list[str] = []

    async def scene() -> None:
        gate = Gate(pool)
        first = await held(gate)
        tasks = [ask("greedy", pool.run(lambda: order.append(current_caller()))) for _ in range(4)]
        tasks += [ask(name, pool.run(lambda: order.append(current_caller()))) for name in ("modest", "late", "late")]
        await settled(tasks)
        gate.open()
        await asyncio.gather(first, *tasks)

    run(scene)
    assert order == ["greedy", "modest", "late", "greedy", "late", "greedy", "greedy"]


def test_one_caller_has_half_of_the_line(pool: BoundedPool) -> None:
    async def scene() -> None:
        gate = Gate(pool)
        first = await held(gate)
        tasks = [ask("greedy", pool.run(int)) for _ in range(5)]
        await settled(tasks)
        with pytest.raises(ServiceError) as told:
            await ask("greedy", pool.run(int))
        assert told.value.reason is Reason.TOO_MANY_CALLS
        tasks += [ask("modest", pool.run(int)) for _ in range(3)]
        await settled(tasks)
        with pytest.raises(ServiceError) as told:
            await ask("modest", pool.run(int))
        assert told.value.reason is Reason.OVERLOADED
        gate.open()
        await asyncio.gather(first, *tasks)
        assert await ask("greedy", pool.run(int, "7")) == 7

    run(scene)


def test_who_gives_up_in_line_is_passed_over(pool: BoundedPool) -> None:
    """Broken on purpose: without the look at `done`, it runs for nobody."""
    ran: list[str] = []

    async def scene() -> None:
        gate = Gate(pool)
        first = await held(gate)
        gone = ask("gone", pool.run(ran.append, "gone"))
        stays = ask("stays", pool.run(ran.append, "stays"))
        await settled([gone, stays])
        gone.cancel()
        gate.open()
        await asyncio.gather(first, stays)
        for _ in range(9):
            await ask("gone", pool.run(int))  # its place is free again

    run(scene)
    assert ran == ["stays"]


def test_closing_drops_what_waits(pool: BoundedPool) -> None:
    async def scene() -> None:
        gate = Gate(pool)
        first = await held(gate)
        waits = ask("somebody", pool.run(int))
        await settled([waits])
        closing = asyncio.create_task(asyncio.to_thread(pool.close))
        while not pool._closed:  # it waits for what runs
            await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, closing)
        with pytest.raises(asyncio.CancelledError):
            await waits

    run(scene)


def test_what_a_call_raises_is_its_callers(pool: BoundedPool) -> None:
    async def scene() -> None:
        with pytest.raises(ValueError, match="none"):
            await pool.run(int, "none")
        assert await pool.run(int, "7") == 7

    run(scene)
