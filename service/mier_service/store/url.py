"""Which database holds the store: a PostgreSQL by its URL, or else the SQLite file in the data folder."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from mier_service.config import CannotStart
from mier_service.data.layout import DATABASE_FILE
from mier_service.store.sqlite import Sqlite
from mier_service.store.store import Database, Store

_EXPECTED = "expected --store-url postgresql://USER@HOST/DATABASE, or none for the SQLite file in the data folder"


def open_store(data: Path, url: str | None, connections: int) -> Store:
    """The store of a data folder. Connects later; raises `CannotStart` where the URL is none of ours."""
    return Store(_database(data, url), connections)


def _database(data: Path, url: str | None) -> Database:
    if not url:
        return Sqlite(data / DATABASE_FILE)
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise CannotStart(f"{_EXPECTED}; got something that is no URL") from None  # it may hold a password
    if parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise CannotStart(f"{_EXPECTED}; got one of {parsed.drivername!r}")
    try:
        from mier_service.store.postgres import Postgres
    except ImportError as error:
        raise CannotStart(f"--store-url needs the extra `postgres`: pip install 'mier[postgres]' ({error})") from error
    return Postgres(parsed)
