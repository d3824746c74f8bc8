"""Retries: inside the deadline, only where they help, and as one call."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mier_client.errors import Conflict, DeadlineExceeded, MierError, Overloaded, Problem, Unavailable
from mier_client.retry import Retrier, RetryPolicy


@dataclass
class Time:
    """A clock that moves by sleeping only."""

    now_s: float = 0.0
    slept_s: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


def retrier(time: Time, attempts: int = 6) -> Retrier:
    policy = RetryPolicy(attempts=attempts, first_backoff_s=0.1, max_backoff_s=0.4)
    return Retrier(policy, clock=lambda: time.now_s, sleep=time.sleep, jitter=lambda: 0.5)


def failing(errors: list[MierError], seen: list[float]) -> str:
    if errors:
        raise errors.pop(0)
    return f"answered after {len(seen)} attempts"


def unavailable() -> Unavailable:
    return Unavailable(Problem("UNREACHABLE", "no route"))


def test_it_tries_again_with_growing_pauses() -> None:
    time, seen, errors = Time(), list[float](), list[MierError]([unavailable() for _ in range(5)])

    def attempt(remaining_s: float) -> str:
        seen.append(remaining_s)
        return failing(errors, seen)

    assert retrier(time).call(attempt, 10.0) == "answered after 6 attempts"
    assert time.slept_s == [0.05, 0.1, 0.2, 0.2, 0.2]  # half of 0.1, 0.2, 0.4, and then of the largest


def test_each_attempt_is_given_what_is_left_of_the_deadline() -> None:
    time, seen, errors = Time(), list[float](), list[MierError]([unavailable()])

    def attempt(remaining_s: float) -> str:
        seen.append(remaining_s)
        time.now_s += 1.0
        return failing(errors, seen)

    retrier(time).call(attempt, 5.0)
    assert seen == [5.0, pytest.approx(5.0 - 1.0 - 0.05)]


def test_the_services_own_pause_is_kept() -> None:
    time, errors = Time(), list[MierError]([Overloaded(Problem("QUEUE_FULL", "full", retry_after_s=3.0))])
    retrier(time).call(lambda _: failing(errors, []), 10.0)
    assert time.slept_s == [3.0]


def test_a_pause_past_the_deadline_is_not_begun() -> None:
    time, errors = Time(), list[MierError]([Overloaded(Problem("QUEUE_FULL", "full", retry_after_s=30.0))])
    with pytest.raises(Overloaded, match="QUEUE_FULL: full"):
        retrier(time).call(lambda _: failing(errors, []), 10.0)
    assert time.slept_s == []


def test_attempts_are_bounded() -> None:
    time, errors = Time(), list[MierError]([unavailable() for _ in range(9)])
    with pytest.raises(Unavailable):
        retrier(time, attempts=3).call(lambda _: failing(errors, []), 100.0)
    assert len(errors) == 6


@pytest.mark.parametrize("kind", [Conflict, DeadlineExceeded])
def test_an_answer_is_final(kind: type[MierError]) -> None:
    errors = list[MierError]([kind(Problem("SESSION_PAUSED", "it is paused")), unavailable()])
    with pytest.raises(kind):
        retrier(Time()).call(lambda _: failing(errors, []), 10.0)
    assert len(errors) == 1


def test_no_time_is_no_attempt() -> None:
    with pytest.raises(DeadlineExceeded, match="no answer within 0 s"):
        retrier(Time()).call(lambda _: failing([], []), 0.0)
