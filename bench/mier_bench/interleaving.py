"""The one way in which anything here is timed: contenders by turns, A/B/A/B, round after round.

A round gives each contender the same slice of time, one right after the other, so that a machine that slows down slows
them all. A contender's figure in a round is the median of its calls: a call that the system interrupted is no slower
program. On a busy machine that does not help a long call, so processor time is measured beside it: what a core to
itself would have taken.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mier_bench.statistics import bootstrap_median_interval, median_of, quantile, round_ratios

MINIMUM_ROUNDS = 5


@dataclass(frozen=True)
class Pace:
    """How long is measured."""

    rounds: int = 9
    """Odd, at least 5."""
    slice_s: float = 0.3
    """Time of one contender in one round; a call that takes longer is made once."""

    def __post_init__(self) -> None:
        if self.rounds < MINIMUM_ROUNDS or self.rounds % 2 == 0:
            raise ValueError(f"expected an odd number of rounds, at least {MINIMUM_ROUNDS}, came {self.rounds}")
        if self.slice_s <= 0.0:
            raise ValueError(f"expected a slice above 0 s, came {self.slice_s}")


@dataclass(frozen=True)
class Timing:
    """One contender's calls, seconds each, by round."""

    rounds: tuple[tuple[float, ...], ...]
    round_cpu_s: tuple[float, ...]
    """Processor time per call, mean of each round."""

    def shared_by(self, count: int) -> Timing:
        """Of one of the `count` things that each call made."""
        return Timing(
            tuple(tuple(call / count for call in calls) for calls in self.rounds),
            tuple(cpu / count for cpu in self.round_cpu_s),
        )

    @property
    def cpu_share(self) -> float:
        """Processor time over wall time: well below 1, others were using this core."""
        return sum(c * len(r) for c, r in zip(self.round_cpu_s, self.rounds, strict=True)) / sum(map(sum, self.rounds))

    @property
    def round_medians_s(self) -> list[float]:
        return [median_of(calls) for calls in self.rounds]

    @property
    def median_s(self) -> float:
        return median_of(self.round_medians_s)

    @property
    def p99_s(self) -> float:
        return quantile([call for calls in self.rounds for call in calls], 0.99)


@dataclass(frozen=True)
class Ratio:
    """Of two contenders' times."""

    median: float
    low: float
    high: float


def ratio(numerator: Timing, denominator: Timing) -> Ratio:
    """Median over rounds of the ratio of their times, with its 95% bootstrap interval over rounds."""
    return _ratio(numerator.round_medians_s, denominator.round_medians_s)


def cpu_ratio(numerator: Timing, denominator: Timing) -> Ratio:
    """The same of their processor times."""
    return _ratio(numerator.round_cpu_s, denominator.round_cpu_s)


def _ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    ratios = round_ratios(numerator, denominator)
    return Ratio(median_of(ratios), *bootstrap_median_interval(ratios))


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    pace: Pace,
    cpu_clocks: Mapping[str, Callable[[], float]] | None = None,
) -> dict[str, Timing]:
    """Time the contenders' calls by turns. `cpu_clocks` tell the processor time of those that are at work in other
    processes, too; that of all others is this process's."""
    clock = dict.fromkeys(contenders, time.process_time) | dict(cpu_clocks or {})
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        _slice(call, 0.5 * pace.slice_s)  # warm caches, lazy imports, allocator
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(pace.rounds):
            for name, call in contenders.items():
                gc.collect()
                used = clock[name]()
                calls = _slice(call, pace.slice_s)
                cpu[name].append((clock[name]() - used) / len(calls))
                taken[name].append(calls)
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(tuple(rounds), tuple(cpu[name])) for name, rounds in taken.items()}


def _slice(call: Callable[[], object], slice_s: float) -> tuple[float, ...]:
    calls = []
    before = time.perf_counter()
    end = before + slice_s
    while before < end:
        call()
        after = time.perf_counter()
        calls.append(after - before)
        before = after
    return tuple(calls)
