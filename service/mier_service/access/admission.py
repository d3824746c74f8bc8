"""How a call of one transport comes in: past the gate, to a place among the calls under way, and then in its turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

from mier_service.access.callers import current_caller
from mier_service.access.key_bounds import CallsUnderWay
from mier_service.errors import Reason, ServiceError


class Admission:
    """Belongs to the event loop."""

    def __init__(self, calls: CallsUnderWay, most: int) -> None:
        """`most`: calls of this transport under way, of all callers."""
        self._calls = calls
        self._most = most
        self._under_way = 0

    def require_room(self) -> None:
        """ServiceError(OVERLOADED) if there is none for one more."""
        if self._under_way >= self._most:
            raise ServiceError(
                Reason.OVERLOADED, f"more than {self._most} calls are under way over this transport: try again shortly"
            )

    @asynccontextmanager
    async def place(self, enter: Callable[[], None]) -> AsyncIterator[None]:
        """For as long as the call takes, from its caller's turn on; `enter` lets the caller in. ServiceError where it
        does not, or where there are too many calls, of all or of this caller; who is at fault is told in its turn."""
        self.require_room()
        turns = self._calls.turns
        with ExitStack() as held:
            try:
                enter()
                held.enter_context(self._calls.place(current_caller()))
            except ServiceError:
                await turns.of_refusal(current_caller())
                raise
            self._under_way += 1
            held.callback(self._ended)
            await turns.of_call(current_caller())
            yield

    def _ended(self) -> None:
        self._under_way -= 1
