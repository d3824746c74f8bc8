"""A row of the table: two figures of one run, their ratio, and whether it is what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from mier_bench.interleaving import Pace, Timing, cpu_ratio, ratio


class Wanted(StrEnum):
    """Which way a ratio is good."""

    AT_LEAST = "at least"
    """The ratio is how many times faster ours is: the peer's time over ours."""
    AT_MOST = "at most"
    """The ratio is what ours costs: its time over the peer's."""


@dataclass(frozen=True)
class Target:
    wanted: Wanted
    ratio: float

    def met_by(self, value: float) -> bool:
        return value >= self.ratio if self.wanted is Wanted.AT_LEAST else value <= self.ratio

    def __str__(self) -> str:
        return f"{self.wanted} {self.ratio:g}"


class Unequal(AssertionError):
    """The contenders do not compute the same: their times say nothing."""


@dataclass(frozen=True)
class Row:
    """One comparison. Figures are seconds per call unless `per_second`; all are null where the hardware is absent."""

    id: int
    what: str
    unit: str
    """Of `ours`, `peer` and `floor`."""
    peer_name: str
    target: Target
    ours: float | None = None
    peer: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    """95%, of the ratio, over rounds."""
    cpu_ratio: float | None = None
    """The same ratio of processor times: what counts where the machine was busy."""
    floor: float | None = None
    floor_name: str | None = None
    p99: Mapping[str, float] = field(default_factory=dict)
    """Of single calls, in `unit` (where that is a rate: of the slowest)."""
    cpu_share: float | None = None
    """Share of the time in which this process had a core; well below 1 the machine was busy."""
    rounds: int = 0
    seeds: tuple[int, ...] = (0,)
    checked: Mapping[str, float] = field(default_factory=dict)
    """Largest differences found where the contenders were checked to be equal first."""
    notes: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.target.met_by(self.ratio)

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        fields["target"] = {"wanted": str(self.target.wanted), "ratio": self.target.ratio}
        return fields | {"met": self.met}


@dataclass(frozen=True)
class Unit:
    """How a call's time is shown."""

    name: str
    of_s: Callable[[float], float]


MICROSECONDS = Unit("µs", lambda s: 1e6 * s)
MILLISECONDS = Unit("ms", lambda s: 1e3 * s)


def per_second(what: str, count: float = 1.0) -> Unit:
    """Rate of something of which a call makes `count`."""
    return Unit(f"{what}/s", lambda s: count / s)


def compared(
    row_id: int,
    what: str,
    target: Target,
    unit: Unit,
    ours: Timing,
    peer: tuple[str, Timing],
    floor: tuple[str, Timing] | None = None,
    *,
    checked: Mapping[str, float] | None = None,
    notes: str = "",
    seeds: tuple[int, ...] = (0,),
) -> Row:
    """The row of two timings of one interleaved run."""
    name, other = peer
    found = ratio(other, ours) if target.wanted is Wanted.AT_LEAST else ratio(ours, other)
    return Row(
        row_id,
        what,
        unit.name,
        name,
        target,
        ours=unit.of_s(ours.median_s),
        peer=unit.of_s(other.median_s),
        ratio=found.median,
        interval=(found.low, found.high),
        cpu_ratio=(cpu_ratio(other, ours) if target.wanted is Wanted.AT_LEAST else cpu_ratio(ours, other)).median,
        floor=unit.of_s(floor[1].median_s) if floor else None,
        floor_name=floor[0] if floor else None,
        p99={"ours": unit.of_s(ours.p99_s), "peer": unit.of_s(other.p99_s)},
        cpu_share=min(ours.cpu_share, other.cpu_share),
        rounds=len(ours.rounds),
        seeds=seeds,
        checked=checked or {},
        notes=notes,
    )


def absent(row_id: int, what: str, target: Target, unit: Unit, peer_name: str, why: str) -> Row:
    """A row whose hardware this machine lacks."""
    return Row(row_id, what, unit.name, peer_name, target, notes=why)


RowMaker = Callable[[Pace], list[Row]]
"""Checks that its contenders compute the same, then times them; what several peers are compared with has several rows.

Raises:
    Unequal: they do not.
"""


def require_equal(what: str, difference: float, tolerance: float) -> float:
    """The difference, if it is within the tolerance.

    Raises:
        Unequal: it is not, or is not a number.
    """
    if not difference <= tolerance:
        raise Unequal(f"{what}: expected a difference of at most {tolerance:g}, came {difference:g}")
    return difference
