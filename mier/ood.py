"""Is a task out of distribution? Its percentile among tasks of the training distribution.

Two numbers of an adaptation tell: how far its context lies from the training tasks' (`Adaptation.ood_score`), and how
badly the adapted model explains held-out transitions (`Adaptation.nll_after`). Calibration measures both on tasks drawn
anew from the training distribution. The p-value of a new task is, for either number, the share of those tasks at least
as strange, itself counted (a conformal p-value: below 5% for one in twenty tasks of the distribution, however the
numbers are spread); for both, twice the smaller one (Bonferroni). The percentile is 100 (1 - p).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Self

from mier.adaptation import Adaptation

OUT_OF_DISTRIBUTION = 95.0
"""A percentile from here on says so: of tasks within the distribution one in twenty does."""


@dataclass(frozen=True)
class OodReference:
    """What tasks of the training distribution show after two trajectories each."""

    distances: tuple[float, ...]
    """Their `ood_score`, ascending."""
    heldout_nlls: tuple[float, ...]
    """Their `nll_after`, ascending."""

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if not values or list(values) != sorted(values):
                raise ValueError(f"{name}: expected ascending numbers, at least one, came {values!s:.80}")

    def percentile(self, found: Adaptation) -> float:
        """0 (typical) to below 100; what is not finite is as strange as can be."""
        both = ((self.distances, found.ood_score), (self.heldout_nlls, found.nll_after))
        return 100.0 * max(0.0, 1.0 - 2.0 * min(_p_value(known, value) for known, value in both))

    def to_json(self) -> dict[str, Any]:
        return {name: list(values) for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Raises: ValueError, TypeError, KeyError: what does not fit."""
        return cls(*(tuple(float(x) for x in tree[name]) for name in ("distances", "heldout_nlls")))


def _p_value(known: tuple[float, ...], value: float) -> float:
    """Share of known values at least as large, with the value itself among them; no number counts as the largest."""
    at_least = len(known) - bisect_left(known, value) if value == value else 0
    return (1 + at_least) / (1 + len(known))
