"""When a request came, though the event loop looked at nothing at the time."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import anyio

from mier_service.watching.loop_watch import LoopWatch

STALL_S = 0.3
SLACK_S = 0.05
"""A machine that does other things is late by itself."""


def _received(busy_s: float) -> tuple[float, float, float]:
    """The instant that the watch gives for a byte that is sent while the loop is busy for so long; when it was sent,
    and when the loop looked at it."""

    async def run() -> tuple[float, float, float]:
        watch, loop = LoopWatch(), asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        watch.want()
        await asyncio.sleep(0.02)  # it ticks
        busy, sent_s = threading.Event(), []

        def send() -> None:
            busy.wait()
            sent_s.append(time.monotonic())
            theirs.send(b"x")

        sender = threading.Thread(target=send)
        sender.start()

        def stand_still() -> None:
            busy.set()
            time.sleep(busy_s)  # what makes the loop busy

        loop.call_soon(stand_still)
        await loop.sock_recv(ours, 1)
        looked_s = time.monotonic()
        received_s = watch.received_s()
        sender.join()
        ours.close()
        theirs.close()
        return received_s, sent_s[0], looked_s

    return anyio.run(run)


def test_time_in_which_the_loop_was_busy_counts() -> None:
    """Broken on purpose: without the stall that has just ended; seen: an instant 0.3 s after the byte was sent."""
    received_s, sent_s, looked_s = _received(STALL_S)
    assert looked_s - sent_s > STALL_S / 2
    assert received_s < sent_s + SLACK_S


def test_time_in_which_it_was_not_does_not() -> None:
    received_s, _, looked_s = _received(0.0)
    assert looked_s - received_s < SLACK_S


def test_without_budgets_nothing_ticks() -> None:
    async def run() -> int:
        watch = LoopWatch()
        assert watch.received_s() <= time.monotonic()
        return len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]

    assert anyio.run(run) == 0
