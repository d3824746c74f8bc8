"""How often the gate is right, over candidates on test tasks, which took no part in its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mier.gate import Verdict


@dataclass(frozen=True)
class Rates:
    """Shares of candidates. A difference within its own 95% interval over episodes is neither better nor worse."""

    candidates: int
    promoted: int
    rejected: int
    undecided: int
    promoted_and_worse: float
    """Of the promoted, those truly worse."""
    better_and_rejected: float
    """Of the truly better, those rejected."""
    better_and_promoted: float
    """Of the truly better, those promoted."""
    worse_and_rejected: float
    """Of the truly worse, those rejected."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Rates:
        """Of rows as the study records them: `verdict`, `true_low` and `true_high` each."""
        by_verdict = {verdict: [row for row in rows if row["verdict"] == verdict] for verdict in Verdict}
        better = [row for row in rows if row["true_low"] > 0.0]
        worse = [row for row in rows if row["true_high"] < 0.0]
        promoted, rejected = by_verdict[Verdict.PROMOTE], by_verdict[Verdict.REJECT]
        return cls(
            len(rows),
            len(promoted),
            len(rejected),
            len(by_verdict[Verdict.INSUFFICIENT_DATA]),
            _share([row for row in promoted if row["true_high"] < 0.0], promoted),
            _share([row for row in better if row["verdict"] == Verdict.REJECT], better),
            _share([row for row in better if row["verdict"] == Verdict.PROMOTE], better),
            _share([row for row in worse if row["verdict"] == Verdict.REJECT], worse),
        )


def _share(some: Sequence[object], of: Sequence[object]) -> float:
    return len(some) / len(of) if of else 0.0
