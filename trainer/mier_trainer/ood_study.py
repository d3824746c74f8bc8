"""How well the out-of-distribution percentile tells tasks apart, over tasks that took no part in its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mier.ood import OUT_OF_DISTRIBUTION


@dataclass(frozen=True)
class Detection:
    """At a threshold of the percentile."""

    inside: int
    outside: int
    precision: float
    """Of the tasks called out of distribution, those that are."""
    recall: float
    """Of the tasks out of distribution, those called so."""
    false_alarms: float
    """Of the tasks within, those called out."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], threshold: float = OUT_OF_DISTRIBUTION) -> Detection:
        """Of rows with `outside` (whether the task is) and `percentile`."""
        called = [row for row in rows if row["percentile"] >= threshold]
        right = sum(1 for row in called if row["outside"])
        outside = sum(1 for row in rows if row["outside"])
        inside = len(rows) - outside
        return cls(
            inside,
            outside,
            precision=right / len(called) if called else 0.0,
            recall=right / outside if outside else 0.0,
            false_alarms=(len(called) - right) / inside if inside else 0.0,
        )
