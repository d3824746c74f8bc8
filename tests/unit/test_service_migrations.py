"""Migrations end at the schema that the code is written against, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, text
from sqlalchemy.exc import IntegrityError

from mier_service.data.layout import DATABASE_FILE
from mier_service.store.schema import data_folder, metadata, promotions, sessions
from mier_service.store.store import Store
from mier_service.store.url import open_store


@pytest.fixture
def store(tmp_path: Path, store_url: str | None) -> Iterator[Store]:
    made = open_store(tmp_path, store_url, connections=1)
    made.migrate()
    yield made
    made.close()


def test_a_new_store_has_the_tables_of_the_schema(store: Store) -> None:
    """Broken on purpose: without r0003's index on promotions, or r0002's `expire_time_s`, it is named."""
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_every_whole_number_has_64_bits(store: Store) -> None:
    """Seeds go to 2^53. SQLite's integers have 64 bits whatever they are called."""
    narrow = "INTEGER" if store.engine.dialect.name == "sqlite" else "BIGINT"
    kinds = {
        str(column["type"])
        for table in metadata.tables
        for column in inspect(store.engine).get_columns(table)
        if "INT" in str(column["type"])
    }
    assert kinds == {narrow}


def test_migrating_twice_changes_nothing(store: Store) -> None:
    def content() -> object:
        look = inspect(store.engine)
        tables = {name: [str(column) for column in look.get_columns(name)] for name in look.get_table_names()}
        with store.engine.connect() as c:
            return tables, [str(row) for row in c.execute(data_folder.select())]

    with store.write() as c:
        c.execute(insert(data_folder).values(id="kept"))
    first = content()
    store.migrate()
    assert content() == first
    assert store.is_current()


def test_the_record_of_promotions_is_only_ever_added_to(store: Store) -> None:
    """By a trigger, which each database has in its own words."""
    row = dict.fromkeys(("seed", "active_version", "transitions_count", "create_time_s"), 1)
    names = dict.fromkeys(("id", "checkpoint", "checkpoint_hash", "environment_json", "state"), "s")
    with store.write() as c:
        c.execute(insert(sessions).values(**row, **names))
        entry = {"kind": "pin", "who": "w", "reason": "r"}
        c.execute(insert(promotions).values(session_id="s", from_version=1, to_version=1, create_time_s=0.0, **entry))
    with pytest.raises(IntegrityError, match="only ever added"), store.write() as c:
        c.execute(text("UPDATE promotions SET who = 'somebody'"))


def test_sessions_of_before_are_their_creators(tmp_path: Path) -> None:
    """As the record of promotions has it, and what is in them counts for that key. Broken on purpose: with the newest
    entry of the record, the session is the service's."""
    store = open_store(tmp_path, None, connections=1)
    config = Config()
    config.set_main_option("script_location", "mier_service.store:migrations")
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.commit()
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as database, database:
        for name in ("made-by-key", "older"):
            row = (name, "tiny", "0" * 64, "{}", 0, "active", 1, 2, 0.0, 0, 0.0)
            columns = "id, checkpoint, checkpoint_hash, environment_json, seed, state, active_version, "
            columns += "transitions_count, create_time_s, pinned, last_used_s"
            database.execute(f"INSERT INTO sessions ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        record = "INSERT INTO promotions (session_id, kind, from_version, to_version, who, reason, create_time_s)"
        for who in ("0123456789ab", "service"):
            database.execute(f"{record} VALUES ('made-by-key', 'publish', 0, 1, ?, '', 0.0)", (who,))
        database.execute(f"{record} VALUES ('older', 'publish', 0, 1, 'service', '', 0.0)")
        batch = "INSERT INTO transition_batches (session_id, episode, first_step, count, rows, policy_versions)"
        database.execute(f"{batch} VALUES ('made-by-key', 0, 0, 2, ?, ?)", (b"r" * 104, b"v" * 16))
    store.migrate()
    store.close()
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as database:
        owners = dict(database.execute("SELECT id, owner FROM sessions"))
        query = "SELECT owner, session_id, stored_bytes, turn FROM key_usage ORDER BY owner"
        usage = database.execute(query).fetchall()
    assert owners == {"made-by-key": "0123456789ab", "older": "anonymous"}
    assert usage == [("0123456789ab", "made-by-key", 3 * 512 + 120, 0), ("anonymous", "older", 512, 0)]
