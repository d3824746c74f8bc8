"""A budget ends when it ends, and what is kept of it is for sending the answer."""

from __future__ import annotations

import math

import pytest

from mier_service.acting.budget import MAX_BUDGET_MS, Budget
from mier_service.errors import ServiceError


@pytest.mark.parametrize(("budget_ms", "kept_back_s"), [(1.0, 0.00025), (8.0, 0.002), (20.0, 0.005), (6e4, 0.005)])
def test_an_answer_is_chosen_a_little_before_the_end(budget_ms: float, kept_back_s: float) -> None:
    budget = Budget.of(100.0, budget_ms)
    assert math.isclose(budget.deadline_s, 100.0 + budget_ms / 1e3)
    assert math.isclose(budget.deadline_s - budget.answer_by_s, kept_back_s, rel_tol=1e-6)


@pytest.mark.parametrize("budget_ms", [0.0, -1.0, math.nan, math.inf, MAX_BUDGET_MS * 1.01])
def test_what_is_no_budget_is_refused(budget_ms: float) -> None:
    with pytest.raises(ServiceError, match="0 < budget_ms <= 60000"):
        Budget.of(0.0, budget_ms)


def test_a_deadline_that_is_over_has_nothing_left() -> None:
    budget = Budget.until(99.0, 100.0)
    assert budget.answer_by_s == budget.deadline_s == 99.0


def test_the_earlier_of_two_is_the_smaller() -> None:
    assert min(Budget.of(0.0, 30.0), Budget.of(0.0, 20.0)) == Budget.of(0.0, 20.0)
