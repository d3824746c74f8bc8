"""Use cases of looking: what happened to a session lately, as one moment of the store, and what is being learned now.

They are for a person at the page. A program reads the same facts one by one, in pages, by the calls of the contract.
"""

from __future__ import annotations

from pydantic import Field

from mier_service.data.storage import Storage
from mier_service.offload import BoundedPool
from mier_service.store import history_rows, promotion_rows, session_rows
from mier_service.values import (
    EpisodeReturnValue,
    ModelContextValue,
    OperationValue,
    PromotionRecordValue,
    SessionValue,
    Value,
    VersionValue,
)

_VERSIONS, _CONTEXTS, _OPERATIONS, _PROMOTIONS, _RETURNS, _UNFINISHED = 60, 200, 12, 40, 200, 256
"""So many of each, the newest."""


class HistoryValue(Value):
    """One session at one moment; lists are newest first, and end where a person stops reading."""

    mark: str = Field(description="Another one whenever anything else here is.")
    session: SessionValue
    versions: list[VersionValue]
    contexts: list[ModelContextValue]
    promotions: list[PromotionRecordValue]
    returns: list[EpisodeReturnValue]
    operations: list[OperationValue] | None = Field(description="Null where the caller may not see operations.")
    acted_before: int | None = Field(description="The version that a rollback makes act; null: there is none.")


class History:
    """Looks, and changes nothing: looking keeps no session from being idle, either."""

    def __init__(self, storage: Storage, pool: BoundedPool) -> None:
        self._storage = storage
        self._pool = pool

    async def of(self, session_id: str, with_operations: bool, known_mark: str = "") -> HistoryValue | None:
        """None: nothing has changed since the look that bore this mark."""
        return await self._pool.run(self._of, session_id, with_operations, known_mark)

    async def unfinished(self) -> list[OperationValue]:
        """Fine-tunes of all sessions that run or wait."""
        return await self._pool.run(self._unfinished)

    def _of(self, session_id: str, with_operations: bool, known_mark: str) -> HistoryValue | None:
        with self._storage.store.read() as c:
            session_rows.require_session(c, session_id)
            mark = history_rows.mark(c, session_id)
            if mark == known_mark:
                return None
            return HistoryValue(
                mark=mark,
                session=session_rows.get_session(c, session_id),
                versions=history_rows.newest_versions(c, session_id, _VERSIONS),
                contexts=history_rows.newest_contexts(c, session_id, _CONTEXTS),
                promotions=history_rows.newest_promotions(c, session_id, _PROMOTIONS),
                returns=history_rows.newest_returns(c, session_id, _RETURNS),
                operations=history_rows.newest_operations(c, session_id, _OPERATIONS) if with_operations else None,
                acted_before=promotion_rows.acted_before(c, session_id),
            )

    def _unfinished(self) -> list[OperationValue]:
        with self._storage.store.read() as c:
            return history_rows.unfinished(c, _UNFINISHED)
