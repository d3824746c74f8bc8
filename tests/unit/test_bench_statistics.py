"""The figures of a comparison, worked out by hand."""

from __future__ import annotations

import pytest

from mier_bench.statistics import bootstrap_median_interval, median_of, quantile, round_ratios


def test_ratios_are_by_round() -> None:
    assert round_ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="as many rounds of both, at least 1, came 1 and 2"):
        round_ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        # Of the 27 ways to draw three of (1, 2, 3), the median is 1 in 7, 2 in 13 and 3 in 7.
        (0.95, (1.0, 3.0)),
        (0.5, (1.0, 3.0)),  # tails of 0.25 are less than 7/27 = 0.259
        (0.48, (2.0, 2.0)),  # tails of 0.26 are more
    ],
)
def test_bootstrap_of_three(confidence: float, expected: tuple[float, float]) -> None:
    assert bootstrap_median_interval([3.0, 1.0, 2.0], confidence) == expected


def test_bootstrap_of_five() -> None:
    # P(median is the smallest) = P(Binomial(5, 0.2) >= 3) = 10 * 0.2^3 * 0.8^2 + 5 * 0.2^4 * 0.8 + 0.2^5 = 0.05792.
    values = [10.0, 20.0, 30.0, 40.0, 50.0]
    assert bootstrap_median_interval(values, 1.0 - 2 * 0.057) == (10.0, 50.0)
    assert bootstrap_median_interval(values, 1.0 - 2 * 0.059) == (20.0, 40.0)


def test_an_even_number_of_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="odd number"):
        bootstrap_median_interval([1.0, 2.0])


def test_quantile_is_one_of_the_values() -> None:
    values = [float(i) for i in range(1, 201)]
    assert quantile(values, 0.99) == 198.0
    assert quantile([5.0], 0.99) == 5.0
    with pytest.raises(ValueError, match="came 0 values"):
        quantile([], 0.5)


def test_median_of_an_even_number() -> None:
    assert median_of([4.0, 1.0, 3.0, 2.0]) == 2.5
