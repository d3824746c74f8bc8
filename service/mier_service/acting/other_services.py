"""What other services do to sessions that act here: looked for in the store every `period_s`, and taken over.

Keys, operations and all that is read for each call are as new as the store anyway; what acts is the one thing that a
service keeps beyond a call (`Acting`).
"""

from __future__ import annotations

import asyncio

import structlog

from mier_service.acting.acting import Acting
from mier_service.errors import ServiceError
from mier_service.offload import BoundedPool
from mier_service.store import session_rows
from mier_service.store.store import Store

_AT_ONCE = 16
_log = structlog.get_logger(__name__)


class OtherServices:
    """Belongs to the event loop."""

    def __init__(self, store: Store, acting: Acting, pool: BoundedPool, period_s: float) -> None:
        self._store = store
        self._acting = acting
        self._pool = pool
        self._period_s = period_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.look()
            except ServiceError as error:
                _log.warning("not_followed", detail=error.detail)

    async def look(self) -> None:
        """Once."""
        held = self._acting.held()
        if not held:
            return
        found = await self._pool.run(self._read, list(held))
        for gone in held.keys() - found.keys():
            self._acting.forget(gone)
        changed = [session_id for session_id, acts in found.items() if held[session_id] != acts]
        for start in range(0, len(changed), _AT_ONCE):
            loads = (self._acting.refresh(session_id) for session_id in changed[start : start + _AT_ONCE])
            for outcome in await asyncio.gather(*loads, return_exceptions=True):
                if isinstance(outcome, ServiceError):
                    _log.warning("version_not_loaded", detail=outcome.detail)
                elif isinstance(outcome, BaseException):
                    raise outcome

    def _read(self, session_ids: list[str]) -> dict[str, session_rows.Acts]:
        with self._store.read() as c:
            return session_rows.what_acts(c, session_ids)
