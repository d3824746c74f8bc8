"""Returns that fell: nothing is found by chance more often than promised, over a policy's whole life."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from mier.returns import FALSE_ALARMS, fall, level_after, rank_test

LIFE_EPISODES, LIVES = 120, 400
Law = Callable[[np.random.Generator, int], np.ndarray]

LAWS: dict[str, Law] = {
    "falls 3 in 10": lambda g, n: np.where(g.random(n) < 0.3, g.normal(10.0, 2.0, n), g.normal(100.0, 2.0, n)),
    "exponential": lambda g, n: g.exponential(10.0, n),
    "succeeds 1 in 2": lambda g, n: (g.random(n) < 0.5).astype(float),
}


def looks(before: int) -> list[int]:
    return [n for n in range(2, LIFE_EPISODES + 1) if level_after(before, n) is not None]


@pytest.mark.parametrize("name", LAWS)
def test_false_alarms_of_a_whole_life(name: str) -> None:
    """Broken on purpose: with the first look's level for every look, 2.5% of lives or more have an alarm."""
    alarms = 0
    for before in (3, 5, 30):
        generator, when = np.random.default_rng(before), looks(before)
        for _ in range(LIVES):
            old, life = LAWS[name](generator, before), LAWS[name](generator, LIFE_EPISODES)
            alarms += any(fall(old, life[:n]) is not None for n in when)
    expected = FALSE_ALARMS * 3 * LIVES
    assert alarms <= expected + 2.0 * expected**0.5


@pytest.mark.parametrize("before", [2, 3, 5, 30])
def test_what_all_looks_may_err_adds_up_to_the_promise(before: int) -> None:
    levels = [level for n in range(2, 5_000) if (level := level_after(before, n)) is not None]
    assert len(levels) > 8
    assert sum(levels) <= FALSE_ALARMS
    assert all(level_after(before, n) is None for n in (0, 1))


@pytest.mark.parametrize(("before", "after"), [(2, 19), (3, 9), (5, 5), (10, 3), (30, 2)])
def test_a_policy_that_is_worse_each_time_is_found_at_the_first_look(before: int, after: int) -> None:
    generator = np.random.default_rng(0)
    old, new = generator.normal(100.0, 5.0, before), generator.normal(20.0, 5.0, after)
    assert looks(before)[0] == after
    found = fall(old, new)
    assert found is not None
    assert (found.episodes, found.episodes_before) == (after, before)
    assert found.p_value <= found.level == 0.005
    assert fall(old, new[:-1]) is None


def test_a_smaller_fall_takes_longer() -> None:
    generator = np.random.default_rng(1)
    old, new = generator.normal(100.0, 10.0, 20), generator.normal(88.0, 10.0, LIFE_EPISODES)
    found = [n for n in looks(20) if fall(old, new[:n])]
    assert found
    assert found[0] > looks(20)[0]


@pytest.mark.parametrize(("old", "new"), [(100.0, 99.5), (0.0, 0.0), (-5.0, -5.02), (3.0, 8.0)])
def test_returns_that_are_nearly_equal_or_better_are_no_fall(old: float, new: float) -> None:
    """However sure: nothing is left to chance here. Broken on purpose: without `_NEGLIGIBLE`, 99.5 is a fall."""
    assert all(fall([old] * 5, [new] * n) is None for n in looks(5))


def test_what_succeeds_or_fails_has_to_fail_often_enough() -> None:
    """Broken on purpose: a t-test, its variance zero, is sure after two failures."""
    assert fall([1.0] * 5, [0.0] * 4) is None
    assert fall([1.0] * 5, [0.0] * 5) is not None


def test_orders_are_counted_out() -> None:
    """Against every order there is."""
    generator = np.random.default_rng(2)
    for n0, n1 in ((2, 7), (4, 4), (6, 3)):
        old, new = generator.normal(0.5, 1.0, n0), generator.normal(0.0, 1.0, n1)
        rank = np.concatenate([old, new]).argsort().argsort()
        wins = (new[:, None] >= old).sum()

        def wins_of(chosen: tuple[int, ...], rank: np.ndarray = rank) -> int:
            rest = [rank[i] for i in range(len(rank)) if i not in chosen]
            return sum(int(rank[i] > other) for i in chosen for other in rest)

        orders = [wins_of(chosen) for chosen in combinations(range(n0 + n1), n1)]
        expected = np.mean([each <= wins for each in orders]) if 2 * wins < n0 * n1 else 1.0
        assert rank_test(old, new) == pytest.approx(expected)


def test_many_returns_are_as_good_as_normal() -> None:
    generator = np.random.default_rng(3)
    old, new = generator.normal(0.5, 1.0, 21), generator.normal(0.0, 1.0, 25)
    assert rank_test(old, new) == pytest.approx(rank_test(old[:20], new), rel=1.0)
    assert rank_test(old, old) == 1.0


def test_a_tie_speaks_for_the_new_policy() -> None:
    assert rank_test(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0])) > rank_test(
        np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.9])
    )
