"""The limits that a session's actions keep to, the same code at the server and at the edge.

Two kinds, in this order: no entry changes by more than `max_change` from the step before; then none leaves [low, high].
Where the step before lay outside the bounds, the bounds win.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
_NOWHERE = np.float32(np.inf)


class Limiter:
    """Limits of one session; immutable."""

    def __init__(self, low: Sequence[float], high: Sequence[float], max_change: Sequence[float] | None = None) -> None:
        """[action_dim] each, environment units; `max_change` None or empty: changes are not limited.

        Raises:
            ValueError: of different lengths, low above high, or a change that is not above 0.
        """
        # To the nearest, as the policy's own bounds are: at the environment's bounds nothing is limited.
        self._low, self._high = np.array(low, np.float32), np.array(high, np.float32)
        self._max_change = np.array(max_change, np.float64) if max_change is not None and len(max_change) else None
        if self._low.ndim != 1 or self._low.shape != self._high.shape or not (self._low <= self._high).all():
            raise ValueError(f"expected bounds [action_dim] with low <= high, came {low} and {high}")
        if self._max_change is not None and (
            self._max_change.shape != self._low.shape or not (self._max_change > 0.0).all()
        ):
            raise ValueError(f"expected {len(self._low)} largest changes above 0, came {max_change}")

    @property
    def limits_change(self) -> bool:
        """Whether it matters what was done in the step before."""
        return self._max_change is not None

    def __call__(self, action: FloatArray, previous: FloatArray | None) -> tuple[FloatArray, bool]:
        """action [action_dim] after `previous` [action_dim] (None: the first of an episode) -> the nearest action
        within the limits, and whether it is another one."""
        kept = action
        if self._max_change is not None and previous is not None:
            before = previous.astype(np.float64)
            kept = np.clip(kept, *_inside(before - self._max_change, before + self._max_change))
        kept = np.clip(kept, self._low, self._high)
        return kept, bool((kept != action).any())


def _inside(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> tuple[FloatArray, FloatArray]:
    """As float32, rounded inwards: no change between them is larger than allowed, not by one unit in the last place."""
    near_low, near_high = low.astype(np.float32), high.astype(np.float32)
    return (
        np.where(near_low < low, np.nextafter(near_low, _NOWHERE), near_low),
        np.where(near_high > high, np.nextafter(near_high, -_NOWHERE), near_high),
    )
