"""Whether the service can do its work, looked at every few seconds: what the probes of both transports say.

The store counts as writable once a transaction has been written and flushed: a disk that is full can still be read.
Probes and metrics tell what the last look found, so asking often costs nothing, and a store that hangs cannot hang
them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from mier_service.data.storage import Storage
from mier_service.errors import ServiceError
from mier_service.lifecycle import Lifecycle
from mier_service.offload import BoundedPool
from mier_service.store import probe_row, row_counts
from mier_service.store.row_counts import StoreFigures
from mier_service.watching.metrics import Metrics

_ANSWER_WITHIN_S = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Check:
    """One thing that must hold for the service to be ready."""

    name: str
    holds: bool
    detail: str = ""
    """What is wrong; also what is not quite right while it holds."""


class Monitor:
    """Belongs to the event loop, but for `look`."""

    def __init__(
        self,
        storage: Storage,
        lifecycle: Lifecycle,
        metrics: Metrics,
        pool: BoundedPool,
        every_s: float,
        on_change: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._storage = storage
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._pool = pool
        self._every_s = every_s
        self._on_change = on_change
        self._prepared: tuple[Check, ...] = (Check("checkpoint", False, "none is loaded yet"),)
        self._store = Check("store", False, "not looked at yet")
        self._told: bool | None = None
        self.sessions: int | None = None
        """Stored at the last look; None if the store did not answer."""

    @property
    def checks(self) -> tuple[Check, ...]:
        return (self._store, *self._prepared)

    @property
    def ready(self) -> bool:
        return self._lifecycle.ready and all(check.holds for check in self.checks)

    @property
    def status(self) -> str:
        """ready, or why not in two words."""
        if not self._lifecycle.ready:
            return self._lifecycle.phase.value
        return next((f"no {check.name}" for check in self.checks if not check.holds), "ready")

    def prepared(self, *checks: Check) -> None:
        """What was found while the service prepared; it does not change while it runs."""
        self._prepared = checks

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Once."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                figures = await self._pool.run(self.try_store)
            self._metrics.store_holds(figures)
            self.sessions = sum(figures.sessions.values())
            store = Check("store", True)
        except TimeoutError:
            self.sessions, store = None, Check("store", False, f"no answer within {_ANSWER_WITHIN_S:.0f} s")
        except OSError as error:
            self.sessions, store = None, Check("store", False, error.strerror or type(error).__name__)
        except ServiceError as error:
            self.sessions, store = None, Check("store", False, error.detail)
        if store.holds != self._store.holds:
            _log.log(
                logging.INFO if store.holds else logging.ERROR, "store_writable", holds=store.holds, detail=store.detail
            )
        self._store = store
        await self.tell()

    async def tell(self) -> None:
        """Probes of both transports say the same."""
        ready = self.ready
        self._metrics.checked(ready, {check.name: check.holds for check in self.checks})
        if ready != self._told:
            self._told = ready
            await self._on_change(ready)

    def try_store(self) -> StoreFigures:
        """Writes to it, then reads what there is. Runs in a thread. Raises `ServiceError`."""
        storage = self._storage
        now_s = storage.clock()
        with storage.store.write() as c:
            probe_row.write(c, now_s)
        with storage.store.read() as c:
            found = row_counts.count(c, now_s)
        database_bytes, disk_free_bytes = storage.room()
        return replace(found, database_bytes=database_bytes, disk_free_bytes=disk_free_bytes)
