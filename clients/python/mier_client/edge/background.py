"""A thread that does one thing again and again, and waits longer and longer where that fails."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from mier_client.errors import MierError
from mier_client.retry import RetryPolicy

_log = logging.getLogger(__name__)


class Background:
    """From `start` to `stop`."""

    def __init__(
        self,
        name: str,
        turn: Callable[[], float],
        backoff: RetryPolicy,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`turn` does it once, and returns the pause until it is due again, in seconds. Whatever it raises is kept as
        `error` until it succeeds again, and the pause grows by `backoff`."""
        self._turn, self._backoff, self._jitter = turn, backoff, jitter
        self._woken, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.error: Exception | None = None
        """What the last turn failed with."""

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Ends the pause, if there is one."""
        self._woken.set()

    def stop(self) -> None:
        """Returns once the turn under way has ended."""
        self._stopping = True
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            self._woken.clear()
            try:
                pause_s = self._turn()
                failures, self.error = 0, None
            except Exception as error:  # a thread that died would leave the robot with what it has, for good
                failures += 1
                if not isinstance(error, MierError):
                    _log.exception("%s failed", self._thread.name)
                elif failures == 1:
                    _log.warning("%s: %s", self._thread.name, error)
                self.error = error
                wanted_s = error.problem.retry_after_s if isinstance(error, MierError) else None
                pause_s = self._backoff.backoff_s(failures, wanted_s, self._jitter())
            if not self._stopping:
                self._woken.wait(pause_s)
