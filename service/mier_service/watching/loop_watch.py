"""When a request was received, though the event loop was busy at that time.

A request that comes while the loop is busy waits in a socket, and nothing says since when. So a timer ticks while
callers give budgets: a tick that comes late shows how long the loop has looked at nothing, and what is read right after
it may have waited for all of that. It is a guess on the safe side: rather too early than too late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_TICK_S = 0.002
_LATE_S = 0.0015
"""A timer is as late as this by itself."""
_AFTER = 0.25
_LEAST_AFTER_S, _MOST_AFTER_S = 0.002, 0.1
"""What is looked at within this share of a stall's length after it may have come during it: it has a few steps to make
until it is looked at, and so has all else that came."""
_KEPT_S = 10.0
"""The timer stops when nobody gave a budget for so long."""


class LoopWatch:
    """Belongs to the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticked_s: float | None = None
        """When it last ticked; None: it does not."""
        self._stall_began_s = self._stall_ended_s = self._wanted_s = 0.0

    def want(self) -> None:
        """A budget was given: keeps the timer going for a while."""
        self._wanted_s = self._clock()
        if self._ticked_s is None:
            self._ticked_s = self._wanted_s
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def received_s(self) -> float:
        """No later than when the request was received that is looked at now."""
        now_s = self._clock()
        if self._ticked_s is None:
            return now_s
        if now_s - self._ticked_s > _TICK_S + _LATE_S:
            return self._ticked_s
        after_s = _AFTER * (self._stall_ended_s - self._stall_began_s)
        after_s = min(max(after_s, _LEAST_AFTER_S), _MOST_AFTER_S)
        return self._stall_began_s if now_s - self._stall_ended_s < after_s else now_s

    def _tick(self) -> None:
        now_s = self._clock()
        if self._ticked_s is not None and now_s - self._ticked_s > _TICK_S + _LATE_S:
            self._stall_began_s, self._stall_ended_s = self._ticked_s, now_s
        self._ticked_s = now_s
        if now_s - self._wanted_s < _KEPT_S:
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        else:
            self._ticked_s = None
