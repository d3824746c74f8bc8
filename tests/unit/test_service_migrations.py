"""Migrations end at the schema that the code is written against, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, text
from sqlalchemy.exc import IntegrityError

from mier_service.schema import data_folder, metadata, promotions, sessions
from mier_service.store import Store
from mier_service.store_url import open_store


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
