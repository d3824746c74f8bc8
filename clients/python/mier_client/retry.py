"""Retries inside a deadline.

Only what cannot harm is tried again: reads and acting (functions of their arguments), submitted steps (keyed
by episode and step), and other writes under one idempotency key for all attempts. So a retry equals a single
call. What the retries of a call have come to is kept by `Tries`, which neither calls nor sleeps: blocking callers and
awaiting ones share it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
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


class Tries:
    """The attempts of one call."""

    def __init__(self, retrier: Retrier, timeout_s: float) -> None:
        self._retrier = retrier
        self._timeout_s = timeout_s
        self._deadline_s = retrier.clock() + timeout_s
        self._failures = 0

    def remaining_s(self) -> float:
        """What the next attempt may take; DeadlineExceeded if there is no time for one."""
        remaining_s = self._deadline_s - self._retrier.clock()
        if remaining_s <= 0:
            raise DeadlineExceeded(
                Problem("DEADLINE_EXCEEDED", f"no answer within {self._timeout_s:g} s ({self._failures} attempts)")
            )
        return remaining_s

    def progressed(self) -> None:
        """A stream brought something: its failures are counted anew."""
        self._failures = 0

    def pause_s(self, error: Overloaded | Unavailable) -> float:
        """How long to wait before the next attempt; raises the error if there is to be none."""
        self._failures += 1
        policy, clock = self._retrier.policy, self._retrier.clock
        pause_s = policy.backoff_s(self._failures, error.problem.retry_after_s, self._retrier.jitter())
        if self._failures >= policy.attempts or clock() + pause_s >= self._deadline_s:
            raise error
        return pause_s


@dataclass(frozen=True)
class Retrier:
    """Calls until success, a final error, or the deadline."""

    policy: RetryPolicy = RetryPolicy()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = field(default=random.random)
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep

    def call(self, attempt_call: Callable[[float], Reply], timeout_s: float) -> Reply:
        """`attempt_call(remaining_s)` makes one attempt that ends within `remaining_s`."""
        tries = Tries(self, timeout_s)
        while True:
            remaining_s = tries.remaining_s()
            try:
                return attempt_call(remaining_s)
            except (Overloaded, Unavailable) as error:
                pause_s = tries.pause_s(error)
            self.sleep(pause_s)

    async def call_async(self, attempt_call: Callable[[float], Awaitable[Reply]], timeout_s: float) -> Reply:
        """The same, awaited."""
        tries = Tries(self, timeout_s)
        while True:
            remaining_s = tries.remaining_s()
            try:
                return await attempt_call(remaining_s)
            except (Overloaded, Unavailable) as error:
                pause_s = tries.pause_s(error)
            await self.sleep_async(pause_s)
