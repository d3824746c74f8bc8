"""Means with 95% intervals by Student's t.

Where there are several fine-tune seeds, a sample is a seed's mean: episodes of one fine-tuned policy are not
independent tries of fine-tuning. Where there is one seed, the samples are its episodes, and the interval says nothing
about another fine-tune.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom; past that the normal's serves.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL95 = 1.960


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its 95% interval; None where one sample cannot tell."""

    mean: float
    low: float | None
    high: float | None
    over: Literal["seeds", "episodes"]
    """What the samples were."""


def mean_interval(groups: Sequence[Sequence[float]]) -> Interval:
    """Of the mean over all groups; a group holds the episodes of one seed."""
    if not groups or not all(groups):
        raise ValueError(f"expected at least one episode for each seed, got {[len(group) for group in groups]}")
    several = len(groups) > 1
    samples = [fmean(group) for group in groups] if several else list(groups[0])
    over: Literal["seeds", "episodes"] = "seeds" if several else "episodes"
    mean = fmean(samples)
    if len(samples) < 2:
        return Interval(mean, None, None, over)
    freedom = len(samples) - 1
    quantile = _T95[freedom - 1] if freedom <= len(_T95) else _NORMAL95
    half = quantile * stdev(samples) / math.sqrt(len(samples))
    return Interval(mean, mean - half, mean + half, over)
