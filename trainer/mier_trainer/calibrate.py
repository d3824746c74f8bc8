"""What a checkpoint should know of its own errors, measured in the simulator on tasks that are not its test tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mier.calibration import GateThresholds
from mier_trainer.gate_trials import Trial

_SHARE = 0.95


def gate_thresholds(trials: Iterable[Trial]) -> GateThresholds:
    """What at most 5% of the truly worse candidates pass, and at most 5% of the truly better ones fail.

    Raises:
        ValueError: there is no candidate of one of the two kinds.
    """
    trials = list(trials)
    worse = [t.comparison.lowest_difference for t in trials if t.true_difference < 0.0]
    better = [t.comparison.highest_difference for t in trials if t.true_difference > 0.0]
    if not worse or not better:
        raise ValueError(
            f"expected candidates that are truly worse and some that are better, came {len(worse)} and {len(better)}; "
            "calibrate on more tasks or seeds"
        )
    return GateThresholds(
        promote_above=max(0.0, sorted(worse)[math.ceil(_SHARE * (len(worse) - 1))]),
        reject_below=min(0.0, sorted(better)[math.floor((1.0 - _SHARE) * (len(better) - 1))]),
        candidates=len(trials),
    )
