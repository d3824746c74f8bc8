"""The durable store: one database, SQLite or PostgreSQL, used so that a committed transaction survives power loss.

Invariants
- `read()` is one moment of the store. When the block of `write()` ends without an error, the transaction is on disk.
- What a write reads cannot change before it writes. By default nobody else writes meanwhile. On SQLite that is so
  whatever is asked for; on PostgreSQL writes about one session, and rows that guard themselves, may go on side by side
  (`of`), and everything else excludes them all.
- A failure of the storage surfaces as `ServiceError(STORAGE_UNAVAILABLE)` and leaves nothing half-written.

What differs between the two is in `store/sqlite.py` and `store/postgres.py`, behind `Database`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from mier_service.errors import Reason, ServiceError
from mier_service.store.watch import watched

TOKENED: Final = ""
"""For `Store.write(of=...)`: rows that are written only where they are still as the writer knows them (by a lease
token), or are taken one by one by whoever comes first."""
_log = structlog.get_logger(__name__)


class Database(Protocol):
    """What differs between SQLite and PostgreSQL."""

    shared: bool
    """Whether several services may use it at once."""
    driver_errors: tuple[type[Exception], ...]
    """What the driver raises where SQLAlchemy does not wrap it."""

    def engine(self, connections: int) -> Engine:
        """Opened so that a commit is durable; refuses a database that is not set up for that."""

    def reading(self, c: Connection) -> Connection:
        """The connection, set so that its next transaction is one moment of the store."""

    def writing(self, c: Connection) -> Connection:
        """The connection, set for a transaction that writes."""

    def lock(self, c: Connection, of: str | None, key: str) -> None:
        """The locks that a write takes first, see `Store.write`."""

    def compact(self, c: Connection) -> None:
        """Leaves no byte of what was deleted; `c` has no transaction open."""

    def used_bytes(self, c: Connection) -> int:
        """What it takes on its disk."""

    def failure(self, error: DBAPIError, committing: bool) -> ServiceError | None:
        """The refusal that a driver's error means to a caller; None if it is a mistake of ours."""


class Store:
    """Opens the database; `migrate()` must have run once before anything else."""

    def __init__(self, database: Database, connections: int) -> None:
        self._database = database
        self._engine = database.engine(connections)
        self.on_done: Callable[[str, float, bool], None] = lambda kind, seconds, failed: None
        """Told of each transaction (see `store/watch.py`)."""

    @property
    def shared(self) -> bool:
        """Whether other services may be using it."""
        return self._database.shared

    def migrate(self) -> None:
        """Brings the tables to this program's schema; refuses those of a later release, and leaves them as they are."""
        config = _alembic()
        scripts = ScriptDirectory.from_config(config)
        known = {script.revision for script in scripts.walk_revisions()}
        with self._errors(), self._engine.connect() as connection:
            self._database.lock(connection, None, "")
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

    def schema(self) -> str | None:
        """The revision of its tables; None where there are none. Changes nothing."""
        with self._errors(), self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def is_current(self) -> bool:
        """Whether the tables have this program's schema; changes nothing."""
        return self.schema() == ScriptDirectory.from_config(_alembic()).get_current_head()

    @watched("read")
    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot."""
        with self._errors(), self._engine.connect() as connection:
            connection = self._database.reading(connection)
            with connection.begin():
                yield connection

    @watched("write")
    @contextmanager
    def write(self, of: str | None = None, key: str = "") -> Iterator[Connection]:
        """A transaction; on disk when the block ends, undone if it raises.

        Args:
            of: what it reads and writes. None: anything, and nobody else writes meanwhile. A session's id: rows of that
                session and no files; nobody else writes about it. `TOKENED`: see there.
            key: the caller's idempotency key, if it has one; nobody else does anything under it meanwhile.
        """
        progress = _Progress()
        with self._errors(progress), self._engine.connect() as connection:
            connection = self._database.writing(connection)
            with connection.begin():
                self._database.lock(connection, of, key)
                yield connection
                progress.committing = True

    def used_bytes(self) -> int:
        """What the database takes on its disk, on SQLite with the log."""
        with self._errors(), self._engine.connect() as connection:
            return self._database.used_bytes(connection)

    def compact(self) -> None:
        """Writes the database anew without what was deleted, of which pages may keep bytes. Nobody else may use it."""
        with self._errors(), self._engine.connect() as connection:
            self._database.compact(connection)

    def close(self) -> None:
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        return self._engine

    @contextmanager
    def _errors(self, progress: _Progress | None = None) -> Iterator[None]:
        # OSError: of a file that is put while the transaction is open.
        failures: tuple[type[Exception], ...] = (SQLAlchemyError, OSError, *self._database.driver_errors)
        try:
            yield
        except IntegrityError:
            raise  # a mistake of ours, not of the storage
        except DBAPIError as error:
            refusal = self._database.failure(error, progress is not None and progress.committing)
            if refusal is None:
                raise
            if refusal.reason is Reason.STORAGE_UNAVAILABLE:
                _log.error("storage_failed", error=str(error))
            raise refusal from error
        except failures as error:
            _log.error("storage_failed", error=str(error))
            raise storage_unavailable(error) from error


@dataclass
class _Progress:
    """How far a write came before it failed."""

    committing: bool = False


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", "mier_service.store:migrations")
    return config


def storage_unavailable(error: Exception, cause: str = "") -> ServiceError:
    """What a caller may know of a failing disk or database."""
    if not cause and isinstance(error, OSError) and error.strerror:
        cause = error.strerror  # without the path, which is none of the caller's business
    return ServiceError(
        Reason.STORAGE_UNAVAILABLE,
        f"the store cannot be used now ({cause or type(error).__name__}); nothing was changed: try again later",
    )
