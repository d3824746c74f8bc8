"""A service's store and data folder as `mierctl` opens them: at rest, or under a running service of the same schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from mier_service.config import STORE_URL_VARIABLE
from mier_service.data.data_lock import lock_data
from mier_service.data.layout import DATABASE_FILE
from mier_service.mierctl.output import Refused
from mier_service.store import url as stores
from mier_service.store.store import Store

Data = Annotated[Path, typer.Option("--data", envvar="MIER_DATA", help="The service's data folder.")]
DEFAULT_DATA = Path("mier-data")
"""As for `mier-serve`."""
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store-url",
        envvar=STORE_URL_VARIABLE,
        show_envvar=True,
        help="The service's, where its store is a PostgreSQL.",
    ),
]

FilesUrl = Annotated[
    str | None,
    typer.Option(
        "--files-url", envvar="MIER_FILES_URL", show_envvar=True, help="The service's, where its files are at a URL."
    ),
]


def require_data_folder(data: Path) -> None:
    if not (data / DATABASE_FILE).is_file():
        raise Refused(
            f"{data} is no data folder of a service with a store of its own (it has no {DATABASE_FILE}): give --data "
            "the right one, or the --store-url"
        )


@contextmanager
def read_copy(data: Path, store_url: str | None) -> Iterator[Store]:
    """A copy of the store among the temporary files, brought to this program's schema there. Nothing is written to the
    folder itself, whether or not a service runs on it. A store by URL is read where it is, at this program's schema."""
    if store_url:
        with open_store(data, store_url) as shared:
            yield shared
        return
    require_data_folder(data)
    source = data / DATABASE_FILE
    # With no log beside it SQLite is told that nobody writes, or it would put a new one there in order to read.
    at_rest = not source.with_name(f"{source.name}-wal").exists()
    address = f"{source.absolute().as_uri()}?mode=ro" + ("&immutable=1" if at_rest else "")
    with TemporaryDirectory(prefix="mierctl-") as folder:
        copy = Path(folder) / DATABASE_FILE
        try:
            with (
                closing(sqlite3.connect(address, uri=True, timeout=30.0)) as live,
                closing(sqlite3.connect(copy)) as copied,
            ):
                live.backup(copied)
        except sqlite3.Error as error:
            raise Refused(f"the store {source} cannot be read: {error}") from error
        store = stores.open_store(Path(folder), None, connections=1)
        try:
            store.migrate()
            yield store
        finally:
            store.close()


@contextmanager
def open_store(data: Path, store_url: str | None, *, make: bool = False) -> Iterator[Store]:
    """The store, brought to this program's schema unless a service has it open; `make`: one that is not there is made.
    Refuses a running service of another schema, which only its own `mierctl` may write to."""
    store = stores.open_store(data, store_url, connections=1)
    try:
        if store.shared:
            _require_schema(store, make)
        else:
            _bring_up(data, store, make)
        yield store
    finally:
        store.close()


def _bring_up(data: Path, store: Store, make: bool) -> None:
    if not make:
        require_data_folder(data)
    lock = lock_data(data)
    if lock is not None:
        with lock:
            store.migrate()
    elif not store.is_current():
        raise Refused(
            f"the service on {data} has another schema than this mierctl, or is just starting: use the mierctl that "
            "was installed with it, or try again"
        )


def _require_schema(store: Store, make: bool) -> None:
    """Nobody here can tell whether services are using it, so it is not changed."""
    found = store.schema()
    if found is None and make:
        store.migrate()
    elif not store.is_current():
        raise Refused(
            f"the store has {'no schema yet' if found is None else f'schema {found}'}, which is not this mierctl's: "
            "use the mierctl of the release that its services are of, or start this release's first"
        )
