"""What a candidate would have done, beside what was done."""

from __future__ import annotations

import numpy as np
import pytest

from mier.shadow import NOTHING, Evidence

LOW, HIGH = np.array([-1.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)


def seen(candidate: list[list[float]], acting: list[list[float]]) -> Evidence:
    return NOTHING.after(np.array(candidate, np.float32), np.array(acting, np.float32), LOW, HIGH)


def test_a_difference_is_a_share_of_the_range_in_the_entry_that_differs_most() -> None:
    """Broken on purpose: in units of the action, the second entry would always be the largest."""
    found = seen([[0.5, 5.0], [0.0, 5.0], [0.0, 9.0]], [[-0.5, 5.0], [0.1, 5.0], [0.0, 5.0]])
    np.testing.assert_allclose(found.differences, [0.5, 0.05, 0.4], rtol=1e-6)
    assert found.mean == pytest.approx(0.95 / 3)
    assert found.largest == pytest.approx(0.5)
    assert found.acts == 3


def test_one_act_in_twenty_differs_by_more_than_the_quantile() -> None:
    ones = [[share, 0.0] for share in np.linspace(-1.0, 0.98, 100)]
    found = seen(ones, [[-1.0, 0.0]] * 100)
    assert (found.differences > found.quantile).mean() <= 0.05


def test_actions_at_a_bound_are_counted_on_both_sides() -> None:
    found = seen([[-1.0, 5.0], [0.0, 9.95], [0.0, 5.0]], [[0.0, 5.0], [0.0, 5.0], [0.99, 5.0]])
    assert (found.at_limit, found.acting_at_limit) == (2, 1)


def test_evidence_adds_up() -> None:
    first, second = [[0.5, 5.0]], [[0.0, 5.0], [1.0, 0.0]]
    whole = seen([*first, *second], [[0.0, 5.0]] * 3)
    parts = seen(first, [[0.0, 5.0]]).after(np.array(second, np.float32), np.full((2, 2), [0.0, 5.0]), LOW, HIGH)
    np.testing.assert_array_equal(parts.differences, whole.differences)
    assert parts.at_limit == whole.at_limit


def test_the_verdict() -> None:
    found = seen([[0.5, 5.0], [0.0, 5.0]], [[0.0, 5.0], [0.0, 5.0]])
    assert found.verdict(3, 0.3) is None
    assert found.verdict(2, 0.3) is True
    assert found.verdict(2, None) is True
    assert found.verdict(100, 0.2) is False
    assert NOTHING.verdict(1, 0.1) is None


def test_an_action_that_is_no_number_is_never_good_enough() -> None:
    found = seen([[0.0, 5.0], [np.nan, 5.0]], [[0.0, 5.0], [0.0, 5.0]])
    assert found.verdict(1, None) is False
    assert np.isinf(found.largest)
