"""Acting over the last minutes, for a person to see: rates and times between two looks at the metrics.

A Prometheus keeps this for months; here it is kept for `_KEPT` looks, in memory, so that a page needs nobody else.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mier_service.watching.metrics import Acting, Metrics

_EVERY_S = 2.0
_KEPT = 300


@dataclass(frozen=True)
class Interval:
    """Between two looks."""

    end_time_s: float
    """Seconds since the epoch."""
    acts_per_s: float
    refused_per_s: float
    stored_per_s: float
    """Transitions."""
    p50_ms: float | None
    """Time that half of the acts took at most; None: nobody acted. So accurate as the histogram's buckets."""
    p99_ms: float | None


class Traffic:
    """Belongs to the event loop."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._last: tuple[float, Acting] | None = None
        self.intervals: deque[Interval] = deque(maxlen=_KEPT)
        """Oldest first."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.take(await asyncio.to_thread(self._metrics.acting))
            await asyncio.sleep(_EVERY_S)

    def take(self, now: Acting) -> None:
        """One more look."""
        now_s = self._clock()
        if self._last is not None and now_s > self._last[0]:
            self.intervals.append(between(*self._last, now_s, now))
        self._last = now_s, now

    @property
    def now(self) -> Acting | None:
        return self._last[1] if self._last else None


def between(start_s: float, before: Acting, end_s: float, after: Acting) -> Interval:
    """What happened from one look to the next."""
    seconds = end_s - start_s
    counts = {bound: count - before.within_s.get(bound, 0.0) for bound, count in after.within_s.items()}
    return Interval(
        end_time_s=end_s,
        acts_per_s=(after.acts - before.acts) / seconds,
        refused_per_s=(after.refused - before.refused) / seconds,
        stored_per_s=(after.stored - before.stored) / seconds,
        p50_ms=_quantile_ms(counts, 0.5),
        p99_ms=_quantile_ms(counts, 0.99),
    )


def _quantile_ms(within_s: dict[float, float], share: float) -> float | None:
    """From cumulative counts by upper bound in seconds, as Prometheus's histogram_quantile: linear within a bucket."""
    bounds = sorted(within_s)
    total = within_s[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    low, below = 0.0, 0.0
    for bound in bounds:
        if within_s[bound] >= share * total:
            if math.isinf(bound):
                return 1000.0 * low
            return 1000.0 * (low + (bound - low) * (share * total - below) / (within_s[bound] - below))
        low, below = bound, within_s[bound]
    return None
