"""News of operations: workers write to the store, this side notices and tells who waits.

Workers are other processes, so the store is the only channel that cannot lose a message. It is looked at every
`period_s`; what this process changes itself is told at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from mier_service.errors import Reason, ServiceError
from mier_service.offload import BoundedPool
from mier_service.store import operation_rows
from mier_service.store.store import Store
from mier_service.values import OperationState

_log = structlog.get_logger(__name__)


class Changes:
    """Who waits for which operation. Belongs to the event loop."""

    def __init__(self, max_watchers: int) -> None:
        self._max_watchers = max_watchers
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._count = 0
        self._expected: set[str] = set()
        self.draining = False

    @contextmanager
    def watch(self, operation_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change of the operation, and when the service drains."""
        if self._count >= self._max_watchers:
            raise ServiceError(
                Reason.OVERLOADED,
                f"{self._count} operations are being watched, at most {self._max_watchers} may: "
                "read the operation instead, or watch later",
            )
        event = asyncio.Event()
        self._watchers[operation_id].add(event)
        self._count += 1
        try:
            yield event
        finally:
            self._count -= 1
            self._watchers[operation_id].discard(event)
            if not self._watchers[operation_id]:
                del self._watchers[operation_id]

    def expect(self, operation_id: str) -> None:
        """A new operation, which may be over before it is looked for the first time."""
        self._expected.add(operation_id)

    def of_interest(self) -> set[str]:
        """Operations that are to be looked at, whatever their state."""
        return self._expected | self._watchers.keys()

    def seen(self, operation_ids: set[str]) -> None:
        """They were looked at."""
        self._expected -= operation_ids

    def tell(self, operation_id: str) -> None:
        for event in self._watchers.get(operation_id, ()):
            event.set()

    def drain(self) -> None:
        """Wakes all who wait, for the last time."""
        self.draining = True
        for events in self._watchers.values():
            for event in events:
                event.set()


class Poller:
    """Looks at the store for what workers did; `on_published` gets the session whose new version is there."""

    def __init__(
        self,
        store: Store,
        changes: Changes,
        pool: BoundedPool,
        on_published: Callable[[str], Awaitable[None]],
        period_s: float,
    ) -> None:
        self._store = store
        self._changes = changes
        self._pool = pool
        self._on_published = on_published
        self._period_s = period_s
        self._known: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except ServiceError as error:
                _log.warning("poll_failed", detail=error.detail)
            await asyncio.sleep(self._period_s)

    async def look(self) -> None:
        """Once."""
        asked = self._known.keys() | self._changes.of_interest()
        rows = await self._pool.run(self._read, list(asked))
        self._changes.seen(asked)
        before, self._known = self._known, {}
        for row in rows:
            final = OperationState(row.state).final
            if not final:
                self._known[row.id] = row.revision
            if before.get(row.id) == row.revision:
                continue
            if row.state == OperationState.SUCCEEDED.value:
                # First the version, then the news: who hears of success acts with it.
                await self._on_published(row.session_id)
            self._changes.tell(row.id)
        for gone in asked - {row.id for row in rows}:
            self._changes.tell(gone)

    def _read(self, ids: list[str]) -> list[operation_rows.Revision]:
        with self._store.read() as c:
            return operation_rows.revisions(c, ids)
