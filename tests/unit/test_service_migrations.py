"""Migrations end at the schema that the code is written against."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from mier_service.schema import metadata
from mier_service.store import Store


def test_a_new_store_has_the_tables_of_the_schema(tmp_path: Path) -> None:
    """Broken on purpose: without r0003's index on promotions, or r0002's `expire_time_s`, it is named."""
    store = Store(tmp_path / "store.sqlite3", connections=1)
    store.migrate()
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    store.close()


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    def dump() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as database:
            return list(database.iterdump())

    store = Store(tmp_path / "store.sqlite3", connections=1)
    store.migrate()
    first = dump()
    store.migrate()
    store.close()
    assert dump() == first
    assert any("promotions_append_only" in line for line in first)


def test_the_record_of_promotions_is_only_ever_added_to(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite3", connections=1)
    store.migrate()
    store.close()
    with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as database:
        database.execute("INSERT INTO promotions VALUES (1, 's', 'pin', 1, 1, 'w', 'r', 0.0)")
        with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
            database.execute("UPDATE promotions SET who = 'somebody'")


def test_sessions_of_before_are_their_creators(tmp_path: Path) -> None:
    """As the record of promotions has it, and what is in them counts for that key. Broken on purpose: with the newest
    entry of the record, the session is the service's."""
    store = Store(tmp_path / "store.sqlite3", connections=1)
    config = Config()
    config.set_main_option("script_location", "mier_service:migrations")
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.commit()
    with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as database, database:
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
    with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as database:
        owners = dict(database.execute("SELECT id, owner FROM sessions"))
        query = "SELECT owner, session_id, stored_bytes, turn FROM key_usage ORDER BY owner"
        usage = database.execute(query).fetchall()
    assert owners == {"made-by-key": "0123456789ab", "older": "anonymous"}
    assert usage == [("0123456789ab", "made-by-key", 3 * 512 + 120, 0), ("anonymous", "older", 512, 0)]
