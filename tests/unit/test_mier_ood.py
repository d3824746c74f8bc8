"""A percentile that keeps its word: of tasks within the distribution one in twenty counts as beyond it, or fewer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mier.adaptation import Adaptation
from mier.ood import OUT_OF_DISTRIBUTION, OodReference


def found(distance: float, nll: float) -> Adaptation:
    return Adaptation(np.zeros(2, np.float32), 0.0, nll, distance, 400)


def test_by_hand() -> None:
    """Broken on purpose: without the new task among those counted, the strangest would be at 100."""
    reference = OodReference((1.0, 2.0, 3.0), (-1.0, 0.0, 1.0))
    assert reference.percentile(found(0.5, -9.0)) == 0.0
    assert reference.percentile(found(3.5, -9.0)) == pytest.approx(100.0 * (1.0 - 2.0 / 4.0))
    assert reference.percentile(found(0.5, 1.5)) == pytest.approx(100.0 * (1.0 - 2.0 / 4.0))
    assert reference.percentile(found(3.0, -9.0)) == 0.0  # twice 2/4


def test_what_is_not_finite_is_as_strange_as_can_be() -> None:
    reference = OodReference(tuple(map(float, range(99))), tuple(map(float, range(99))))
    for strange in (found(math.nan, 0.0), found(math.inf, 0.0), found(0.0, math.nan), found(0.0, math.inf)):
        assert reference.percentile(strange) == pytest.approx(98.0)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_tasks_within_the_distribution_are_called_out_one_time_in_twenty_or_less(correlation: float) -> None:
    """Broken on purpose: with the smaller p-value alone, not twice it, 10% are called out without correlation."""
    rng = np.random.default_rng(0)
    covariance = [[1.0, correlation], [correlation, 1.0]]
    called = 0
    for _ in range(200):
        drawn = np.exp(rng.multivariate_normal([0.0, 0.0], covariance, 120))
        known, new = drawn[:100], drawn[100:]
        reference = OodReference(*(tuple(sorted(column.tolist())) for column in known.T))
        called += sum(reference.percentile(found(*row)) >= OUT_OF_DISTRIBUTION for row in new.tolist())
    share = called / (200 * 20)
    assert 0.01 < share <= 0.055


def test_a_reference_is_refused_unless_ascending() -> None:
    with pytest.raises(ValueError, match="distances: expected ascending numbers, at least one, came"):
        OodReference((2.0, 1.0), (0.0,))
    with pytest.raises(ValueError, match="heldout_nlls: expected ascending"):
        OodReference.from_json({"distances": [1.0], "heldout_nlls": []})
