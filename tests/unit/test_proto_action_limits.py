"""Limits of actions: what comes out keeps them to the last bit, and what keeps them stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mier_proto.action_limits import Limiter

entries = st.floats(-10.0, 10.0, width=32)
pairs = st.lists(entries, min_size=3, max_size=3).map(lambda values: np.array(values, np.float32))
changes = st.lists(st.floats(1e-6, 5.0), min_size=3, max_size=3)


@given(action=pairs, first=pairs, second=pairs, max_change=changes, inside=pairs)
def test_bounds_and_rates_are_kept(
    action: np.ndarray, first: np.ndarray, second: np.ndarray, max_change: list[float], inside: np.ndarray
) -> None:
    """From a step before that kept them. Broken on purpose: rounding to the nearest; seen: a change of 1.0000001e-6."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    previous = np.clip(inside, low, high)
    limiter = Limiter(low.tolist(), high.tolist(), max_change)
    kept, limited = limiter(action, previous)
    assert kept.dtype == np.float32
    assert (low <= kept).all()
    assert (kept <= high).all()
    assert (np.abs(kept.astype(np.float64) - previous) <= np.array(max_change)).all()
    assert limited == (kept != action).any()
    again, more = limiter(kept, previous)
    assert np.array_equal(again, kept)
    assert not more


def array(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_step_before_outside_the_bounds_gives_way_to_them() -> None:
    kept, limited = Limiter([-1.0], [1.0], [0.1])(array([0.5]), array([3.0]))
    assert (kept.tolist(), limited) == ([1.0], True)


def test_the_first_step_of_an_episode_has_bounds_alone() -> None:
    kept, limited = Limiter([-1.0], [1.0], [0.1])(array([0.9]), None)
    assert (kept.tolist(), limited) == ([np.float32(0.9)], False)


def test_bounds_are_those_of_the_policy_in_float32() -> None:
    """At a bound that float32 cannot hold exactly nothing is limited."""
    kept, limited = Limiter([-0.1], [0.7])(array([0.7]), None)
    assert (kept.tolist(), limited) == ([np.float32(0.7)], False)


@pytest.mark.parametrize(
    ("low", "high", "max_change"),
    [([0.5], [0.4], None), ([0.0], [1.0, 1.0], None), ([0.0], [1.0], [0.1, 0.1]), ([0.0], [1.0], [0.0])],
)
def test_limits_that_fit_nothing_are_refused(
    low: list[float], high: list[float], max_change: list[float] | None
) -> None:
    with pytest.raises(ValueError, match="expected"):
        Limiter(low, high, max_change)
