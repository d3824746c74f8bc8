"""A store and the place of its files belong together.

A store by URL is not in the folder, nor are files by URL: with another `--data`, another `--files-url`, or a file system
that is not mounted, versions would seem lost, and a start would clear away the files of whatever store the place is of. So
a place bears a mark, which its store knows, and a start with any other pair is refused before anything is changed.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection, insert, select

from mier_service.data.files import ContentFiles
from mier_service.data.layout import DATABASE_FILE
from mier_service.data.places import FolderPlace, Place
from mier_service.errors import Reason, ServiceError
from mier_service.store.schema import data_folder
from mier_service.store.store import Store

_MARK = "folder-id"
_AT_A_URL = "url-"
"""How the marks of places begin that are no folders."""


def require_own(place: Place, folder: Path, store: Store) -> None:
    """Refuses to make a SQLite store beside files whose store is elsewhere."""
    if not store.shared and _mark(place) is not None and not (folder / DATABASE_FILE).is_file():
        raise _refusal(f"the files in {place} belong to a store that is not there: give its --store-url or its --data")


def bind(c: Connection, place: Place, kinds: Iterable[ContentFiles], together: bool) -> None:
    """Marks both at their first start; refuses a pair that does not belong together.

    Args:
        together: the store and the files are in one folder.
    """
    mark, known = _mark(place), _known(c)
    if known is None:
        # A mark without a row: the first start was cut off between the two. A store in the folder may be of a release
        # before marks; others have no files before their first start.
        if any(files.names() for files in kinds) and (not together or mark is not None):
            raise _refusal(f"the files in {place} belong to another store: give this one a place of its own")
        known = mark or ("" if isinstance(place, FolderPlace) else _AT_A_URL) + uuid.uuid4().hex
        c.execute(insert(data_folder).values(id=known))
        if mark is None:
            _write_mark(place, known)
    elif mark is None and together and not known.startswith(_AT_A_URL):
        _write_mark(place, known)  # it came from a backup
    else:
        require_pair(c, place)


def require_pair(c: Connection, place: Place) -> None:
    """Refuses a place that is not the store's."""
    known = _known(c)
    if _mark(place) != known:
        elsewhere = "--files-url" if (known or "").startswith(_AT_A_URL) else "--data"
        raise _refusal(
            f"the files of this store are not in {place}: give the {elsewhere} that it was used with, and see that its "
            "file system is mounted"
        )


def bring_mark(store: sqlite3.Connection, folder: Path) -> None:
    """Files that were at a URL are in a backup's folder: it bears their mark from now on."""
    if store.execute("SELECT name FROM sqlite_master WHERE name = 'data_folder'").fetchone():
        for (known,) in store.execute("SELECT id FROM data_folder"):
            if known.startswith(_AT_A_URL):
                _write_mark(FolderPlace(folder), known)


def _mark(place: Place) -> str | None:
    try:
        return place.read(_MARK).decode()
    except FileNotFoundError:
        return None


def _write_mark(place: Place, mark: str) -> None:
    place.write(_MARK, mark.encode())


def _known(c: Connection) -> str | None:
    return c.execute(select(data_folder.c.id)).scalar()


def _refusal(detail: str) -> ServiceError:
    return ServiceError(Reason.STORAGE_UNAVAILABLE, detail)
