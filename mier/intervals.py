"""Means with 95% intervals: Student's t over paired differences or single samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Two-sided 95% quantiles of Student's t for 1..30 degrees of freedom; past that the normal's serves.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def mean_interval(samples: Sequence[float]) -> Interval:
    """95% interval of the mean of independent samples; infinite for fewer than two."""
    values = np.asarray(samples, float)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return interval_of(float(values.mean()), deviation, len(values))


def interval_of(mean: float, deviation: float, count: int) -> Interval:
    """The same from the samples' mean and standard deviation (of `count` - 1)."""
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    quantile = _T95[count - 2] if count - 2 < len(_T95) else 1.96
    half = quantile * deviation / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)
