"""A store and the folder of its files: pairs that do not belong together are refused, and nothing is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mier_service.data.layout import DATABASE_FILE
from mier_service.data.storage import Storage
from mier_service.errors import ServiceError
from tests.postgres import Postgres
from tests.unit.stored import add_session


def start(data: Path, store_url: str | None, session: str = "") -> None:
    """As a service does; with a session that has files, if one is named."""
    storage = Storage(data, 1, lambda: 0.0, store_url)
    try:
        storage.prepare()
        if session:
            add_session(storage, session, session.encode())
    finally:
        storage.close()


def files(data: Path) -> set[str]:
    return {path.name for path in data.glob("*/*")}


def test_a_store_starts_again_on_its_folder(tmp_path: Path, store_url: str | None) -> None:
    start(tmp_path / "data", store_url, "s")
    kept = files(tmp_path / "data")
    assert len(kept) == 2
    (tmp_path / "data" / "weights" / f"{'0' * 64}.safetensors").write_bytes(b"left behind")
    start(tmp_path / "data", store_url)
    assert files(tmp_path / "data") == kept


def test_another_folder_is_refused(tmp_path: Path, postgres: Postgres) -> None:
    """An empty one, as where nothing is mounted, and that of another store. Broken on purpose: without the mark, the
    files of the other store are cleared away."""
    ours, theirs = postgres.new_store(), postgres.new_store()
    start(tmp_path / "ours", ours, "s")
    start(tmp_path / "theirs", theirs, "t")
    kept = files(tmp_path / "theirs")
    for folder in ("theirs", "empty"):
        with pytest.raises(ServiceError, match="files of this store are not in"):
            start(tmp_path / folder, ours)
    with pytest.raises(ServiceError, match="belong to another store"):
        start(tmp_path / "theirs", postgres.new_store())
    assert files(tmp_path / "theirs") == kept


def test_the_url_left_out_is_noticed(tmp_path: Path, postgres: Postgres) -> None:
    """Broken on purpose: without `require_own`, a new SQLite store clears the files away."""
    start(tmp_path / "data", postgres.new_store(), "s")
    kept = files(tmp_path / "data")
    with pytest.raises(ServiceError, match="--store-url"):
        start(tmp_path / "data", None)
    assert files(tmp_path / "data") == kept
    assert not (tmp_path / "data" / DATABASE_FILE).exists()


def test_the_folder_of_a_sqlite_store_is_not_taken_for_another(tmp_path: Path, postgres: Postgres) -> None:
    start(tmp_path / "data", None, "s")
    kept = files(tmp_path / "data")
    with pytest.raises(ServiceError, match="belong to another store"):
        start(tmp_path / "data", postgres.new_store())
    (tmp_path / "data" / "folder-id").unlink()  # as a release before marks left it
    with pytest.raises(ServiceError, match="belong to another store"):
        start(tmp_path / "data", postgres.new_store())
    start(tmp_path / "data", None)
    assert files(tmp_path / "data") == kept


def test_a_folder_that_was_copied_with_its_store_is_taken(tmp_path: Path, store_url: str | None) -> None:
    """A SQLite store by its file alone, as `mierctl restore` leaves it."""
    start(tmp_path / "data", store_url, "s")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    if store_url is None:
        (tmp_path / "copy" / "folder-id").unlink()
    start(tmp_path / "copy", store_url)
    assert files(tmp_path / "copy") == files(tmp_path / "data")
