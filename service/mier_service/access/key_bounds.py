"""What one key may take at once and keep: the bounds' values, and what is refused by them.

Where nobody is asked for a key, the one anonymous caller is held to them like any key. They are enforced where the
thing itself is: calls under way in the transports, what waits in the pools (`offload`), sessions, fine-tunes and bytes
inside the transaction that would go beyond, so that two calls at once do not either. Acting, reading and deleting are
never refused for what is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from mier_service.access.turns import Turns
from mier_service.errors import Reason, ServiceError

ROW_BYTES = 512
"""What a row of the store counts for, beside the arrays, files and replies that it holds or names."""


class Room(Enum):
    """How far a write may fill what a key may store, as a share of its bound."""

    DATA = 1.0
    DECISIONS = 1.1
    """What stops or decides finds room where data does not: cancel, pause, roll back, pin and the like."""
    FREEING = float("inf")


@dataclass(frozen=True)
class KeyBounds:
    """Of each key."""

    calls: int = 128
    """Under way at once, over both transports; an open stream is one."""
    sessions: int = 20_000
    """That it opened and that are not deleted."""
    fine_tunes: int = 64
    """That it asked for and that run or wait."""
    stored_bytes: int = 16 * 1024**3
    """By its own calls, in whatever session; see `usage_rows`."""

    def require_call(self, under_way: int) -> None:
        """One more call, beside so many."""
        if under_way >= self.calls:
            raise ServiceError(
                Reason.TOO_MANY_CALLS,
                f"{under_way} calls with this key are under way, at most {self.calls} may: wait for one of them",
            )

    def require_session(self, opened: int) -> None:
        """One more session, beside so many."""
        if opened >= self.sessions:
            raise ServiceError(
                Reason.TOO_MANY_SESSIONS,
                f"this key has opened {opened} sessions that are still there, at most {self.sessions} may be: delete "
                "one",
            )

    def require_fine_tune(self, unfinished: int) -> None:
        """One more fine-tune, beside so many."""
        if unfinished >= self.fine_tunes:
            raise ServiceError(
                Reason.TOO_MANY_FINE_TUNES,
                f"{unfinished} fine-tunes that this key asked for run or wait, at most {self.fine_tunes} may: wait for "
                "one, or cancel one",
            )

    def require_stored(self, stored_bytes: int, room: Room) -> None:
        """So much in all, with what is being written."""
        if stored_bytes > room.value * self.stored_bytes:
            raise ServiceError(
                Reason.TOO_MUCH_STORED,
                f"with this, {stored_bytes} bytes would be stored for this key, at most {self.stored_bytes} may be; "
                "nothing was stored: delete sessions",
            )


class CallsUnderWay:
    """Counts each key's calls, over both transports together. Belongs to the event loop."""

    def __init__(self, bounds: KeyBounds) -> None:
        self._bounds = bounds
        self._count: Counter[str] = Counter()
        self.turns = Turns()

    @contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """For as long as a call takes; ServiceError(TOO_MANY_CALLS) if there is none."""
        self.take(caller)
        try:
            yield
        finally:
            self.give_back(caller)

    def take(self, caller: str) -> None:
        """As `place`, to be given back by whoever took it."""
        self._bounds.require_call(self._count[caller])
        self._count[caller] += 1

    def give_back(self, caller: str) -> None:
        self._count[caller] -= 1
        if not self._count[caller]:
            del self._count[caller]
