"""The durable store: one SQLite database, opened so that a committed transaction survives power loss.

Invariants
- WAL with `synchronous=FULL`, foreign keys on: set on every connection, read back, and refused otherwise.
- `write()` begins with BEGIN IMMEDIATE, so that what it reads cannot change before it writes; when its block ends
  without an error, the transaction is on disk.
- A failure of the storage surfaces as `ServiceError(STORAGE_UNAVAILABLE)` and leaves nothing half-written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from mier_service.errors import Reason, ServiceError
from mier_service.store_watch import watched

_BUSY_TIMEOUT_MS = 10_000
_PRAGMAS = {
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
}
_log = structlog.get_logger(__name__)


class Store:
    """Opens the database at `path`; `migrate()` must have run once before anything else."""

    def __init__(self, path: Path, connections: int) -> None:
        self._engine = create_engine(
            f"sqlite:///{path}", pool_size=connections, max_overflow=0, connect_args={"timeout": 10.0}
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self.on_done: Callable[[str, float, bool], None] = lambda kind, seconds, failed: None
        """Told of each transaction (see `store_watch`)."""

    def migrate(self) -> None:
        """Brings the tables to this program's schema; refuses those of a later release, and leaves them as they are."""
        config = _alembic()
        scripts = ScriptDirectory.from_config(config)
        known = {script.revision for script in scripts.walk_revisions()}
        with _storage_errors(), self._engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            if found is not None and found not in known:
                raise ServiceError(
                    Reason.STORAGE_UNAVAILABLE,
                    f"expected a store whose schema is {scripts.get_current_head()} or earlier, got schema {found}: a "
                    "later release has used it. Start that release, or restore a backup that was made before it",
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()

    def is_current(self) -> bool:
        """Whether the tables have this program's schema; changes nothing."""
        head = ScriptDirectory.from_config(_alembic()).get_current_head()
        with _storage_errors(), self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() == head

    @watched("read")
    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot."""
        with _storage_errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @watched("write")
    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction; on disk when the block ends, undone if it raises."""
        with _storage_errors(), self._engine.connect() as connection:
            connection = connection.execution_options(begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    def compact(self) -> None:
        """Writes the database anew without what was deleted, of which pages may keep bytes. Nobody else may use it."""
        with _storage_errors(), self._engine.connect() as connection:
            cursor = connection.connection.cursor()
            cursor.execute("VACUUM")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            cursor.close()

    def close(self) -> None:
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        return self._engine


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", "mier_service:migrations")
    return config


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


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # a mistake of ours, not of the storage
    except (DBAPIError, SQLAlchemyError, sqlite3.Error) as error:
        if isinstance(error, DBAPIError) and not isinstance(error.orig, sqlite3.DatabaseError):
            raise
        _log.error("storage_failed", error=str(error))
        raise storage_unavailable(error) from error
    except OSError as error:  # of a file that is put while the transaction is open
        _log.error("storage_failed", error=str(error))
        raise storage_unavailable(error) from error


def storage_unavailable(error: Exception) -> ServiceError:
    """What a caller may know of a failing disk or database."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = str(error.orig)
    elif isinstance(error, OSError) and error.strerror:
        cause = error.strerror  # without the path, which is none of the caller's business
    else:
        cause = type(error).__name__
    return ServiceError(
        Reason.STORAGE_UNAVAILABLE,
        f"the store cannot be used now ({cause}); nothing was changed: try again later",
    )
