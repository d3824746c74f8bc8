"""Whose turn it is on the event loop, which all calls share: one of each caller's at a time, however many it has there.

    a call comes ──► its caller's turn ──► its body is read, it is decoded, acts, is answered
                └─► a refusal's turn   ──► it is refused, so that being refused is no way to keep the loop busy, either

A pass of the loop begins one call and one refusal of each caller. What one asks for beyond that waits in its own line,
and who asks for little finds the loop free after the pass that is under way. Who has no key has one line with all
others that have none.

Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextvars import ContextVar

MAX_HELD = 1024
"""Refusals that wait, of all callers; those beyond are told at once."""
_waited: ContextVar[float] = ContextVar("mier_waited", default=0.0)


def waited_s() -> float:
    """How long the call under way, or the last message of its stream, waited for its turn."""
    return _waited.get()


class Turns:
    """The lines (see the header of this file)."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, bool], deque[asyncio.Future[None]]] = {}
        self._had: set[tuple[str, bool]] = set()
        """Those that had their turn in this pass. A pass is always to come while there are any, or a line."""
        self._held = 0

    async def of_call(self, caller: str) -> None:
        """Returns when the caller may begin one."""
        await self._mine((caller, False))

    async def of_refusal(self, caller: str) -> None:
        """Returns when the caller may be told that it may not."""
        if self._held >= MAX_HELD:
            return
        self._held += 1
        try:
            await self._mine((caller, True))
        finally:
            self._held -= 1

    async def _mine(self, line: tuple[str, bool]) -> None:
        if line not in self._had:
            if not self._had:
                asyncio.get_running_loop().call_soon(self._pass)
            self._had.add(line)
            _waited.set(0.0)
            return
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(line, deque()).append(turn)
        began_s = time.monotonic()
        await turn
        _waited.set(time.monotonic() - began_s)

    def _pass(self) -> None:
        self._had.clear()
        for line, waiting in list(self._lines.items()):
            while waiting:
                turn = waiting.popleft()
                if not turn.done():  # its caller may have given up
                    turn.set_result(None)
                    self._had.add(line)
                    break
            if not waiting:
                del self._lines[line]
        if self._had:
            asyncio.get_running_loop().call_soon(self._pass)
