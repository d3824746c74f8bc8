"""What interleaved timings say: the median ratio of the rounds, and how far chance may have moved it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median


def round_ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Ratio of each round's two figures; what disturbs a whole round disturbs both, and falls out."""
    if len(numerator) != len(denominator) or not numerator:
        raise ValueError(f"expected as many rounds of both, at least 1, came {len(numerator)} and {len(denominator)}")
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def bootstrap_median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) of the percentile bootstrap of the median of an odd number of values, without drawing.

    The median of n draws with replacement is at most the k-th smallest value where more than half of the draws are:
    with probability P(Binomial(n, k / n) > n / 2). So the bootstrap's distribution is known, and its quantiles with it.
    """
    if len(values) % 2 == 0:
        raise ValueError(f"expected an odd number of values, whose median is one of them, came {len(values)}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"expected a confidence between 0 and 1, came {confidence}")
    ordered, tail = sorted(values), 0.5 * (1.0 - confidence)
    at_most = [_more_than_half(len(values), k) for k in range(1, len(values) + 1)]
    low = next(v for v, p in zip(ordered, at_most, strict=True) if p >= tail)
    high = next(v for v, p in zip(ordered, at_most, strict=True) if p >= 1.0 - tail)
    return low, high


def _more_than_half(n: int, k: int) -> float:
    """P(Binomial(n, k / n) > n / 2)."""
    p = k / n
    return math.fsum(math.comb(n, i) * p**i * (1.0 - p) ** (n - i) for i in range(n // 2 + 1, n + 1))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (0.99: the p99)."""
    if not values or not 0.0 < share <= 1.0:
        raise ValueError(f"expected values and a share in (0, 1], came {len(values)} values and {share}")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def median_of(values: Sequence[float]) -> float:
    """The median; of an even number of values the mean of the middle two."""
    return float(median(values))
