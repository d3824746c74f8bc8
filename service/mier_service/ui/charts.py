"""Figures as data: what `ui.js` hands to uPlot, and what the table beside a chart says in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mier.ood import OUT_OF_DISTRIBUTION
from mier_service.values import EpisodeReturnValue, ModelContextValue
from mier_service.watching.traffic import Interval

COLOURS = 8
"""As many as the style sheet has, --series-0 and on."""
GREY = COLOURS


@dataclass(frozen=True)
class Line:
    """One series over the chart's x."""

    label: str
    y: Sequence[float | None]
    colour: int
    dots: bool = False
    """Single dots; they stand apart."""


@dataclass(frozen=True)
class Chart:
    """What is drawn."""

    x: Sequence[float]
    lines: Sequence[Line]
    x_label: str
    """Empty: the time, in seconds since the epoch."""
    unit: str
    limit: float | None = None
    """A level to compare with."""
    limit_label: str = ""

    @property
    def json(self) -> str:
        return json.dumps(
            {
                "x": list(self.x),
                "lines": [{**line.__dict__, "y": [_short(y) for y in line.y]} for line in self.lines],
                "xLabel": self.x_label,
                "unit": self.unit,
                "limit": self.limit,
                "limitLabel": self.limit_label,
            },
            separators=(",", ":"),
        )

    @property
    def empty(self) -> bool:
        return not any(y is not None for line in self.lines for y in line.y)


def _short(y: float | None) -> float | None:
    return None if y is None else float(f"{y:.5g}")


def throughput(intervals: Sequence[Interval]) -> Chart:
    x = [i.end_time_s for i in intervals]
    return Chart(
        x,
        [
            Line("actions", [i.acts_per_s for i in intervals], 0),
            Line("refused", [i.refused_per_s for i in intervals], 1),
            Line("transitions", [i.stored_per_s for i in intervals], 2),
        ],
        "",
        "per s",
    )


def latency(intervals: Sequence[Interval]) -> Chart:
    x = [i.end_time_s for i in intervals]
    lines = [Line("median", [i.p50_ms for i in intervals], 0), Line("99 of 100", [i.p99_ms for i in intervals], 1)]
    return Chart(x, lines, "", "ms")


def returns(episodes: Sequence[EpisodeReturnValue]) -> Chart:
    """`episodes` newest first. A colour for each version, the same as in the lineage; of many, the older share one."""
    seen = list(reversed(episodes))
    newest = sorted({e.policy_version for e in seen if e.policy_version})[1 - COLOURS :]
    groups = {f"v{number}": [e.policy_version == number for e in seen] for number in newest}
    groups["others"] = [e.policy_version not in newest for e in seen]
    lines = [
        Line(
            label,
            [e.total if own else None for e, own in zip(seen, mine, strict=True)],
            int(label[1:]) % COLOURS if label[0] == "v" else GREY,
            dots=True,
        )
        for label, mine in groups.items()
        if any(mine)
    ]
    return Chart([float(i) for i in range(1 - len(seen), 1)], lines, "episodes ago", "")


def strangeness(contexts: Sequence[ModelContextValue]) -> Chart:
    """`contexts` newest first; the percentile where the checkpoint knows it, else the plain score."""
    seen = [c for c in reversed(contexts) if c.ood_score is not None]
    known = any(c.ood_percentile is not None for c in seen)
    y = [c.ood_percentile if known else c.ood_score for c in seen]
    return Chart(
        [float(c.number) for c in seen],
        [Line("OOD percentile" if known else "OOD score", y, 0)],
        "context",
        "",
        OUT_OF_DISTRIBUTION if known else None,
        "out of distribution",
    )
