"""What only PostgreSQL can do to a store: writers side by side, connections that break, other settings of a server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from mier_service.config import CannotStart
from mier_service.data.storage import Storage
from mier_service.errors import Reason, ServiceError
from mier_service.store import postgres as store_postgres
from mier_service.store import session_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.store.url import open_store
from mier_service.values import StoredValue
from tests.postgres import Postgres
from tests.unit.stored import add_session

WITHIN_S = 60.0


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_store()


@pytest.fixture
def storage(tmp_path: Path, url: str) -> Iterator[Storage]:
    made = Storage(tmp_path / "data", 4, lambda: 0.0, url)
    made.prepare()
    yield made
    made.close()


def count(storage: Storage, session: str = "s") -> int:
    with storage.store.read() as c:
        return session_rows.get_session(c, session).transitions_count


def end_connection(postgres: Postgres, c: Connection) -> None:
    postgres.execute(f"SELECT pg_terminate_backend({c.execute(text('SELECT pg_backend_pid()')).scalar()}, 5000)")


def test_sessions_are_written_side_by_side_and_all_else_alone(storage: Storage, postgres: Postgres) -> None:
    """Broken on purpose: with the exclusive lock for both, the second session waits until the server ends the first
    one's write; with the shared one for both, a write that is to be alone does not wait."""
    for name in ("a", "b"):
        add_session(storage, name, b"")

    def add_to(session: str) -> None:
        with storage.store.write(of=session) as c:
            session_rows.add_to_count(c, session, 1, 0.0)

    def alone() -> None:
        with storage.store.write() as c:
            assert session_rows.get_session(c, "a").transitions_count == 1

    with ThreadPoolExecutor(2) as pool:
        with storage.store.write(of="a") as c:
            session_rows.add_to_count(c, "a", 1, 0.0)
            pool.submit(add_to, "b").result(WITHIN_S)
            waiting = pool.submit(alone)
            while not postgres.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                assert not waiting.done()
        waiting.result(WITHIN_S)
    assert count(storage, "b") == 1


def test_who_stops_in_the_middle_does_not_hold_up_the_others(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a machine that vanished: its transaction is ended by the server, and it hears so if it comes back.

    Broken on purpose: without `idle_in_transaction_session_timeout` the other is refused (lock_timeout)."""
    monkeypatch.setattr(store_postgres, "WAIT_S", 2)
    stopped, other = (Storage(tmp_path / "data", 1, lambda: 0.0, url) for _ in range(2))
    stopped.prepare()
    add_session(stopped, "s", b"")
    with pytest.raises(ServiceError, match="nothing was changed"), stopped.store.write() as c:  # noqa: PT012
        session_rows.add_to_count(c, "s", 1, 0.0)
        with other.store.write() as theirs:
            session_rows.add_to_count(theirs, "s", 10, 0.0)
        session_rows.add_to_count(c, "s", 1, 0.0)
    assert count(other) == 10
    for storage in (stopped, other):
        storage.close()


def test_a_connection_that_breaks_in_a_write_undoes_it(storage: Storage, postgres: Postgres) -> None:
    """And the next write gets another one."""
    add_session(storage, "s", b"")
    with pytest.raises(ServiceError, match="nothing was changed") as told, storage.store.write(of="s") as c:  # noqa: PT012
        session_rows.add_to_count(c, "s", 1, 0.0)
        end_connection(postgres, c)
        session_rows.add_to_count(c, "s", 1, 0.0)
    assert told.value.reason is Reason.STORAGE_UNAVAILABLE
    assert "mier-pg" not in told.value.detail, "the driver's own words name the host"
    with storage.store.write(of="s") as c:
        assert session_rows.add_to_count(c, "s", 5, 0.0) == 5


def test_a_commit_without_an_answer_may_have_been_made(storage: Storage, postgres: Postgres) -> None:
    """So the caller is told to ask again under the same key; whatever happened, it is then done once."""
    add_session(storage, "s", b"")
    retry = Retry.of("key", "Submit", "s")

    def ask() -> StoredValue:
        with storage.once(retry, StoredValue, of="s") as write:
            if write.earlier is None:
                total = session_rows.add_to_count(write.c, "s", 1, 0.0)
                write.reply = StoredValue(stored=1, duplicates=0, transitions_count=total)
        return write.result

    def break_at_commit(c: Connection) -> None:
        end_connection(postgres, c)

    event.listen(storage.store.engine, "commit", break_at_commit)
    with pytest.raises(ServiceError, match="same idempotency key") as told:
        ask()
    event.remove(storage.store.engine, "commit", break_at_commit)
    assert told.value.reason is Reason.STORAGE_UNAVAILABLE
    assert ask() == ask() == StoredValue(stored=1, duplicates=0, transitions_count=1)
    assert count(storage) == 1


def test_a_commit_is_on_disk_whatever_the_database_says(tmp_path: Path, postgres: Postgres) -> None:
    """Broken on purpose: without the look at the setting, `off` stays in force."""
    postgres.execute("CREATE DATABASE hasty")
    postgres.execute("ALTER DATABASE hasty SET synchronous_commit TO off")
    postgres.execute("ALTER DATABASE hasty SET default_transaction_isolation TO 'repeatable read'")
    with closing(open_store(tmp_path, postgres.url("hasty"), 1)) as store:
        store.migrate()
        with store.write() as c:
            assert c.execute(text("SHOW synchronous_commit")).scalar() == "on"
            assert c.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
        with store.read() as c:
            assert c.execute(text("SHOW transaction_isolation")).scalar() == "repeatable read"
            assert c.execute(text("SHOW transaction_read_only")).scalar() == "on"


def test_a_database_of_another_encoding_is_refused(tmp_path: Path, postgres: Postgres) -> None:
    postgres.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    with closing(open_store(tmp_path, postgres.url("ascii"), 1)) as store, pytest.raises(ServiceError, match="UTF8"):
        store.migrate()


def test_text_that_postgresql_cannot_keep_is_the_callers_mistake(storage: Storage) -> None:
    with pytest.raises(ServiceError, match="NUL") as told, storage.store.read() as c:
        session_rows.get_session(c, "s\0")
    assert told.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("bad", ["mysql://secret@host/db", "/var/lib/store", "postgresql+asyncpg://secret@host/db"])
def test_a_url_that_is_none_of_ours_is_refused(tmp_path: Path, bad: str) -> None:
    """Without its password."""
    with pytest.raises(CannotStart, match="expected --store-url postgresql://") as told:
        open_store(tmp_path, bad, 1)
    assert "secret" not in str(told.value)


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    store = open_store(tmp_path, f"postgresql://nobody@/none?host={tmp_path}", 1)
    with pytest.raises(ServiceError, match="no connection to PostgreSQL"):
        store.migrate()
