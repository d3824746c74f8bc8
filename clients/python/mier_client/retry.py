"""Retries inside a deadline.

Only what cannot harm is tried again: reads and acting (functions of their arguments), submitted steps (keyed
by episode and step), and other writes under one idempotency key for all attempts. So a retry equals a single
call.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from mier_client.errors import DeadlineExceeded, Overloaded, Problem, Unavailable

Reply = TypeVar("Reply")


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter; the service's own Retry-After, where it sends one, is kept."""

    attempts: int = 6
    """Calls at most, the first included; 1 switches retries off."""
    first_backoff_s: float = 0.05
    max_backoff_s: float = 2.0

    def backoff_s(self, attempt: int, retry_after_s: float | None, jitter: float) -> float:
        """Pause after failed attempt number `attempt` (from 1); `jitter` in [0, 1)."""
        if retry_after_s is not None:
            return retry_after_s
        return jitter * min(self.max_backoff_s, self.first_backoff_s * 2.0 ** (attempt - 1))


@dataclass(frozen=True)
class Retrier:
    """Calls until success, a final error, or the deadline."""

    policy: RetryPolicy = RetryPolicy()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = field(default=random.random)

    def call(self, attempt_call: Callable[[float], Reply], timeout_s: float) -> Reply:
        """`attempt_call(remaining_s)` makes one attempt that ends within `remaining_s`."""
        deadline = self.clock() + timeout_s
        attempt = 0
        while True:
            attempt += 1
            remaining_s = deadline - self.clock()
            if remaining_s <= 0:
                raise DeadlineExceeded(
                    Problem("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s ({attempt - 1} attempts)")
                )
            try:
                return attempt_call(remaining_s)
            except (Overloaded, Unavailable) as error:
                pause_s = self.policy.backoff_s(attempt, error.problem.retry_after_s, self.jitter())
                if attempt >= self.policy.attempts or self.clock() + pause_s >= deadline:
                    raise
                self.sleep(pause_s)
