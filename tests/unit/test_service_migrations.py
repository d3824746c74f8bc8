"""Migrations end at the schema that the code is written against."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
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
