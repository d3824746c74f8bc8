"""PostgreSQL: a server that several services use at once, on one machine or many.

Every write holds one advisory lock of the database to its end: exclusively, so that it is as alone as on SQLite; or,
where it is about one session or about rows that guard themselves, together with others of that kind. The latter then
lock their idempotency key and the session's row, in this order: so no two of them wait for each other.

Invariants
- Every connection commits to disk (`synchronous_commit` on or stronger; a server with `fsync` off is refused), and its
  text is UTF-8: looked at when it is opened.
- A write sees what others committed before it got its locks (READ COMMITTED); a read is one moment (REPEATABLE READ).
- A lock is waited for, and a write that its owner does not go on with is kept, for `WAIT_S` at most. So a machine that
  vanished while it held a lock holds up the others for no longer than that.
"""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError

from mier_service.errors import Reason, ServiceError
from mier_service.store.schema import metadata, sessions
from mier_service.store.store import TOKENED, storage_unavailable

WAIT_S = 10
"""For a lock, and for a transaction that its owner does not go on with."""
_CONNECT_WITHIN_S = 5
_STORE_LOCK = 0x6D696572
"""The advisory lock of all writes ("mier" in ASCII)."""
_KEY_LOCKS = 0x6D69
"""The class of advisory locks for idempotency keys; those with a class never meet those without."""
_NETWORK = {
    "connect_timeout": _CONNECT_WITHIN_S,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * WAIT_S,
}
"""A server that vanished is noticed within about ten seconds."""
_DURABLE = ("on", "remote_apply")


class Postgres:
    """The database at that URL."""

    shared = True
    driver_errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql+psycopg")

    def engine(self, connections: int) -> Engine:
        engine = create_engine(
            self._url,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=WAIT_S,
            # A server that was restarted costs nobody an error.
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            connect_args={**_NETWORK, "application_name": "mier", "client_encoding": "utf8"},
        )
        event.listen(engine, "connect", _configure)
        return engine

    def reading(self, c: Connection) -> Connection:
        return c.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def writing(self, c: Connection) -> Connection:
        return c

    def lock(self, c: Connection, of: str | None, key: str) -> None:
        # For this transaction only: reads hold up nobody, and may compute between two looks.
        bounded = func.set_config("idle_in_transaction_session_timeout", f"{WAIT_S}s", True)
        if of is None:
            c.execute(select(bounded, func.pg_advisory_xact_lock(_STORE_LOCK)))
            return
        c.execute(select(bounded, func.pg_advisory_xact_lock_shared(_STORE_LOCK)))
        if key:
            c.execute(select(func.pg_advisory_xact_lock(_KEY_LOCKS, _hash(key))))
        if of != TOKENED:
            c.execute(select(sessions.c.row).where(sessions.c.id == of).with_for_update())

    def compact(self, c: Connection) -> None:
        c = c.execution_options(isolation_level="AUTOCOMMIT")
        for table in metadata.sorted_tables:
            c.execute(text(f"VACUUM (FULL) {table.name}"))

    def used_bytes(self, c: Connection) -> int:
        return int(c.execute(select(func.pg_database_size(func.current_database()))).scalar_one())

    def failure(self, error: DBAPIError, committing: bool) -> ServiceError | None:
        if isinstance(error.orig, psycopg.DataError):
            if "NUL" not in str(error.orig):
                return None
            return ServiceError(
                Reason.INVALID_ARGUMENT, "expected text without the character NUL (U+0000), got some: leave it out"
            )
        if not isinstance(error.orig, psycopg.Error):
            return None
        # The driver's own words name hosts and users.
        cause = error.orig.diag.message_primary or "no connection to PostgreSQL"
        if committing:
            return ServiceError(
                Reason.STORAGE_UNAVAILABLE,
                f"the store cannot be used now ({cause}), and whether the change was made is not known: ask again with "
                "the same idempotency key",
            )
        return storage_unavailable(error, cause)


def _configure(connection: psycopg.Connection[Any], _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, false), "
            "current_setting('synchronous_commit'), current_setting('fsync'), current_setting('server_encoding')",
            (f"{WAIT_S}s",),
        )
        row = cursor.fetchone()
        assert row is not None
        _, synchronous, fsync, encoding = row
        if synchronous not in _DURABLE:
            cursor.execute("SET synchronous_commit TO on")
        for name, wanted, got in (("fsync", "on", fsync), ("server_encoding", "UTF8", encoding)):
            if got != wanted:
                raise ServiceError(
                    Reason.STORAGE_UNAVAILABLE,
                    f"the store needs a PostgreSQL database with {name}={wanted}, got {got}: set it up so, or name "
                    "another one by --store-url",
                )
    connection.commit()


def _hash(key: str) -> int:
    """Two keys that share it only wait for each other."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big", signed=True)
