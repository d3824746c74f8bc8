"""Turns at the event loop: whoever has little there does not wait for whoever has much."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from mier_service.access import turns as module
from mier_service.access.turns import Turns, waited_s

MANY = 100


async def _order(turns: Turns, asked: list[str]) -> list[str]:
    """In which order calls of these callers begin; a name that ends in an exclamation mark is refused."""
    began: list[str] = []

    async def call(name: str) -> None:
        await (turns.of_refusal if name.endswith("!") else turns.of_call)(name.rstrip("!"))
        began.append(name)

    await asyncio.gather(*(call(name) for name in asked))
    return began


def test_one_call_among_many_of_another_begins_soon() -> None:
    """Broken on purpose: with one line for all it is the last."""
    order = asyncio.run(_order(Turns(), ["greedy"] * MANY + ["modest"]))
    assert order.index("modest") == 1
    assert order.count("greedy") == MANY


def test_two_that_ask_for_much_take_turns() -> None:
    order = asyncio.run(_order(Turns(), ["first"] * MANY + ["second"] * MANY))
    assert order[: 2 * MANY] == ["first", "second"] * MANY


def test_refusals_take_turns_and_do_not_hold_up_calls() -> None:
    order = asyncio.run(_order(Turns(), ["greedy!"] * MANY + ["greedy", "modest!", "modest"]))
    assert {order[n] for n in range(4)} == {"greedy!", "greedy", "modest!", "modest"}


def test_a_pass_of_the_loop_lies_between_two_calls_of_a_caller() -> None:
    """So that what has come in the meantime is seen. Broken on purpose: with all of a line begun at once there is one
    pass for all."""

    async def passes() -> int:
        count, over = 0, False

        def one() -> None:
            nonlocal count
            count += 1
            if not over:
                asyncio.get_running_loop().call_soon(one)

        one()
        await _order(Turns(), ["greedy"] * MANY)
        over = True
        return count

    assert asyncio.run(passes()) >= MANY


def test_who_gives_up_holds_nobody_up() -> None:
    async def last() -> list[str]:
        turns = Turns()
        waiting = [asyncio.create_task(turns.of_call("greedy")) for _ in range(MANY)]
        await asyncio.sleep(0)
        for task in waiting[1:]:
            task.cancel()
        for task in waiting:
            with suppress(asyncio.CancelledError):
                await task
        return await _order(turns, ["greedy"])

    assert asyncio.run(last()) == ["greedy"]


def test_a_line_is_forgotten_once_it_is_empty() -> None:
    async def left() -> tuple[int, int]:
        turns = Turns()
        await _order(turns, ["greedy"] * MANY)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return len(turns._lines), len(turns._had)

    assert asyncio.run(left()) == (0, 0)


def test_a_call_knows_how_long_it_waited() -> None:
    """For its budget, which began when it came."""

    async def waits() -> list[bool]:
        turns, found = Turns(), []

        async def call() -> None:
            await turns.of_call("greedy")
            found.append(waited_s() > 0.0)

        await asyncio.gather(call(), call())
        return found

    assert asyncio.run(waits()) == [False, True]


def test_refusals_that_wait_are_bounded() -> None:
    """Beyond the bound they are told at once."""

    async def held() -> int:
        turns = Turns()
        waiting = [asyncio.create_task(turns.of_refusal("greedy")) for _ in range(module.MAX_HELD + 50)]
        await asyncio.sleep(0)
        done = sum(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        return done

    assert asyncio.run(held()) == 50  # the first, whose turn it is, and 49 for which there is no room
