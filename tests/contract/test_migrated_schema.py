"""The migrations lead to the schema that the program works with."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mier_service.schema import metadata
from mier_service.storage import DATABASE_FILE
from mier_service.store import Store
from tests.contract.keys import migrate


def test_migrations_lead_to_the_schema(tmp_path: Path) -> None:
    """Broken on purpose: the migration of keys without `expire_time_s`; without its index."""
    migrate(tmp_path)
    store = Store(tmp_path / DATABASE_FILE, connections=1)
    with store.read() as c:
        differences = compare_metadata(MigrationContext.configure(c), metadata)
    store.close()
    assert differences == []
