"""A store and the folder of its files belong together.

A store by URL is not in the folder: with another `--data`, or a file system that is not mounted, its versions would
seem lost, and a start would clear away the files of whatever store the folder is of. So a folder bears a mark, which
its store knows, and a start with any other pair is refused before anything is changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection, insert, select

from mier_service.data.files import ContentFiles, write_durably
from mier_service.data.layout import DATABASE_FILE
from mier_service.errors import Reason, ServiceError
from mier_service.store.schema import data_folder
from mier_service.store.store import Store

_MARK = "folder-id"


def require_own(folder: Path, store: Store) -> None:
    """Refuses to make a SQLite store in a folder whose store is elsewhere."""
    if not store.shared and (folder / _MARK).is_file() and not (folder / DATABASE_FILE).is_file():
        raise _refusal(f"the files in {folder} belong to a store that is not there: give its --store-url")


def bind(c: Connection, folder: Path, kinds: Iterable[ContentFiles], shared: bool) -> None:
    """Marks both at their first start; refuses a pair that does not belong together.

    Args:
        shared: the store is not in the folder.
    """
    mark, known = _mark(folder), _known(c)
    if known is None:
        # A mark without a row: the first start was cut off between the two. A store in the folder may be of a release
        # before marks; one by URL has no files before its first start.
        if any(files.names() for files in kinds) and (shared or mark is not None):
            raise _refusal(f"the files in {folder} belong to another store: give this one a --data of its own")
        known = mark or uuid.uuid4().hex
        c.execute(insert(data_folder).values(id=known))
        if mark is None:
            _write_mark(folder, known)
    elif mark is None and not shared:
        _write_mark(folder, known)  # it came from a backup
    else:
        require_pair(c, folder)


def require_pair(c: Connection, folder: Path) -> None:
    """Refuses a folder that is not the store's."""
    if _mark(folder) != _known(c):
        raise _refusal(
            f"the files of this store are not in {folder}: give the --data that it was used with, and see that its "
            "file system is mounted"
        )


def _mark(folder: Path) -> str | None:
    return (folder / _MARK).read_text() if (folder / _MARK).is_file() else None


def _write_mark(folder: Path, mark: str) -> None:
    write_durably(folder / _MARK, mark.encode())


def _known(c: Connection) -> str | None:
    return c.execute(select(data_folder.c.id)).scalar()


def _refusal(detail: str) -> ServiceError:
    return ServiceError(Reason.STORAGE_UNAVAILABLE, detail)
