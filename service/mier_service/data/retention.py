"""Upkeep: writes down which sessions were used, and deletes what the settings say is kept no longer.

Invariants
- A sweep is bounded: so many sessions, so many idempotency keys; the rest waits for the next.
- A session that acts is used, though acting writes nothing: what acted is written down at each sweep and at the end.
  Other services on the store write theirs as often, so a session is kept for two sweeps longer where there may be some.
- Time in which the service did not run does not count: nobody could have used the session then. How long it has run is
  told by a clock that nobody sets: a robot may start in 1970, and know the time when it has a network.
- A session that is being fine-tuned stays, however long that takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from mier_service.acting.acting import Acting
from mier_service.data import purging
from mier_service.data.purging import Remains
from mier_service.data.storage import KEYS_KEPT_S, Storage
from mier_service.errors import ServiceError
from mier_service.offload import BoundedPool
from mier_service.store import idempotency_rows, session_rows

_MAX_SESSIONS = 20
_MAX_KEYS = 1000
_log = structlog.get_logger(__name__)


class Retention:
    """Belongs to the event loop."""

    def __init__(
        self,
        storage: Storage,
        acting: Acting,
        pool: BoundedPool,
        keep_idle_sessions_s: float | None,
        every_s: float,
        uptime: Callable[[], float],
    ) -> None:
        """`uptime` is a clock in seconds that only ever goes on at its pace."""
        self._storage = storage
        self._acting = acting
        self._pool = pool
        self._keep_s = keep_idle_sessions_s
        if self._keep_s is not None and storage.store.shared:
            self._keep_s += 2 * every_s
        self._every_s = every_s
        self._uptime = uptime
        self._since_s = uptime()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.sweep()
            except (ServiceError, OSError) as error:
                _log.warning("sweep_failed", error=str(error))

    async def sweep(self) -> int:
        """Once; how many sessions were deleted."""
        await self.write_down_use()
        await self._pool.run(self._forget_keys)
        if self._keep_s is None or self._uptime() - self._since_s < self._keep_s:
            return 0
        deleted = 0
        before_s = self._storage.clock() - self._keep_s
        for session_id in await self._pool.run(self._idle, before_s):
            if self._acting.acted_since_asked(session_id):
                continue
            remains = await self._pool.run(self._delete, session_id, before_s)
            if remains is None:
                continue
            deleted += 1
            self._acting.forget(session_id)
            _log.info("idle_session_deleted", session=session_id, kept_s=self._keep_s)
        return deleted

    async def write_down_use(self) -> None:
        """Makes durable which sessions acted since the last time."""
        acted = self._acting.take_acted()
        if acted:
            try:
                await self._pool.run(self._touch, acted)
            except ServiceError:
                self._acting.give_back_acted(acted)
                raise

    def _touch(self, session_ids: set[str]) -> None:
        with self._storage.store.write() as c:
            session_rows.touch(c, session_ids, self._storage.clock())

    def _forget_keys(self) -> None:
        with self._storage.store.write() as c:
            idempotency_rows.forget_before(c, self._storage.clock() - KEYS_KEPT_S, _MAX_KEYS)

    def _idle(self, before_s: float) -> list[str]:
        with self._storage.store.read() as c:
            return session_rows.unused_since(c, before_s, _MAX_SESSIONS)

    def _delete(self, session_id: str, before_s: float) -> Remains | None:
        with self._storage.store.write() as c:
            if session_id not in session_rows.unused_since(c, before_s, 1, session_id):
                return None  # somebody came back to it
            remains = purging.remove_rows(c, session_id)
        purging.remove_files(self._storage, remains)
        return remains
