"""SQLite: a file that one service uses, with the `mierctl` beside it.

Invariants
- WAL with `synchronous=FULL`, foreign keys on: set on every connection, read back, and refused otherwise.
- A write begins with BEGIN IMMEDIATE, so there is one at a time, whatever it is about.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from mier_service.errors import Reason, ServiceError
from mier_service.store.store import storage_unavailable

_BUSY_TIMEOUT_MS = 10_000
_PRAGMAS = {
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
}


class Sqlite:
    """The database at `path`, made if it is not there."""

    shared = False
    driver_errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self._path = path

    def engine(self, connections: int) -> Engine:
        engine = create_engine(
            f"sqlite:///{self._path}", pool_size=connections, max_overflow=0, connect_args={"timeout": 10.0}
        )
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return engine

    def reading(self, c: Connection) -> Connection:
        return c

    def writing(self, c: Connection) -> Connection:
        return c.execution_options(begin="BEGIN IMMEDIATE")

    def lock(self, c: Connection, of: str | None, key: str) -> None:
        """BEGIN IMMEDIATE was that."""

    def compact(self, c: Connection) -> None:
        cursor = c.connection.cursor()
        cursor.execute("VACUUM")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        cursor.close()

    def used_bytes(self, c: Connection) -> int:
        files = [self._path.with_name(f"{self._path.name}{suffix}") for suffix in ("", "-wal")]
        return sum(file.stat().st_size for file in files if file.exists())

    def failure(self, error: DBAPIError, committing: bool) -> ServiceError | None:
        # A commit that fails is undone.
        return storage_unavailable(error, str(error.orig)) if isinstance(error.orig, sqlite3.DatabaseError) else None


def _configure(connection: sqlite3.Connection, _: Any) -> None:
    # The driver's own implicit transactions are switched off: `_begin` says when one starts, and how.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    for name, (wanted, expected) in _PRAGMAS.items():
        cursor.execute(f"PRAGMA {name}={wanted}")
        (got,) = cursor.execute(f"PRAGMA {name}").fetchone()
        if got != expected:
            raise ServiceError(
                Reason.STORAGE_UNAVAILABLE,
                f"the store needs SQLite with {name}={wanted}, got {got}: is it on a network file system?",
            )
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))
