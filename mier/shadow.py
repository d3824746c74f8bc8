"""A candidate in shadow: on live observations, how do its actions differ from those that were done?

A difference is a share of the action's range, so that 0.1 means the same for every entry; of one act it is that of the
entry in which the two differ most. It says nothing of which one is better: only how much would change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

QUANTILE = 0.95
_AT_LIMIT = 0.01
"""Of the range: as close to a bound as that counts as at it."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was seen so far; immutable."""

    differences: FloatArray
    """[acts]; infinite where the candidate had no finite action."""
    at_limit: int = 0
    """Acts in which an entry of the candidate's action was at a bound."""
    acting_at_limit: int = 0
    """The same of what was done."""

    @property
    def acts(self) -> int:
        return len(self.differences)

    @property
    def mean(self) -> float:
        return float(self.differences.mean()) if self.acts else 0.0

    @property
    def quantile(self) -> float:
        """So large is the difference in at most one act of twenty."""
        return float(np.quantile(self.differences, QUANTILE, method="higher")) if self.acts else 0.0

    @property
    def largest(self) -> float:
        return float(self.differences.max(initial=0.0))

    def after(self, candidate: FloatArray, acting: FloatArray, low: FloatArray, high: FloatArray) -> Evidence:
        """With further acts: actions [n, action_dim] of both, bounds [action_dim]."""
        span = np.maximum(high - low, np.finfo(np.float32).tiny)
        finite = np.isfinite(candidate).all(axis=1)
        with np.errstate(invalid="ignore"):
            found = np.where(finite, (np.abs(candidate - acting) / span).max(axis=1), np.inf)
        return Evidence(
            np.concatenate([self.differences, found.astype(np.float32)]),
            self.at_limit + _at_limit(candidate, low, high),
            self.acting_at_limit + _at_limit(acting, low, high),
        )

    def verdict(self, acts: int, max_difference: float | None) -> bool | None:
        """Whether it may act, after so many acts; None: they are not there yet. A difference beyond the largest that is
        allowed ends it at once, and so does an action that is no number."""
        largest = self.largest
        if not np.isfinite(largest) or (max_difference is not None and largest > max_difference):
            return False
        return True if self.acts >= acts else None


NOTHING = Evidence(np.zeros(0, np.float32))


def _at_limit(actions: FloatArray, low: FloatArray, high: FloatArray) -> int:
    margin = _AT_LIMIT * (high - low)
    return int(((actions <= low + margin) | (actions >= high - margin)).any(axis=1).sum())
