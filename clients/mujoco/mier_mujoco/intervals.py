"""Intervals of means by bootstrap: distribution-free, and repeatable since the resampling's seed is fixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 10_000
_LEVELS = (0.025, 0.975)


def mean_interval(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95% interval of the mean; each group is one seed's samples.

    Groups are resampled first, then samples within each, since episodes of one fine-tuned policy are not independent
    tries of fine-tuning.
    """
    if not groups or not all(groups):
        raise ValueError(f"expected at least one sample in each group, got {[len(g) for g in groups]}")
    rng = np.random.default_rng(0)
    means = np.zeros(_RESAMPLES)
    arrays = [np.asarray(group, np.float64) for group in groups]
    chosen = rng.integers(len(arrays), size=(_RESAMPLES, len(arrays)))
    for position in range(len(arrays)):
        for index, array in enumerate(arrays):
            rows = np.flatnonzero(chosen[:, position] == index)
            if rows.size:
                draws = rng.integers(array.size, size=(rows.size, array.size))
                means[rows] += array[draws].mean(axis=1) / len(arrays)
    low, high = np.quantile(means, _LEVELS)
    return float(low), float(high)
