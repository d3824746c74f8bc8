"""A service's data folder as `mierctl` opens it: at rest, or under a running service of the same schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from mier_service.data_lock import lock_data
from mier_service.layout import DATABASE_FILE
from mier_service.mierctl.output import Refused
from mier_service.store import Store

Data = Annotated[Path, typer.Option("--data", envvar="MIER_DATA", help="The service's data folder.")]
DEFAULT_DATA = Path("mier-data")
"""As for `mier-serve`."""


def require_data_folder(data: Path) -> None:
    if not (data / DATABASE_FILE).is_file():
        raise Refused(f"{data} is no data folder of a service (it has no {DATABASE_FILE}): give --data the right one")


@contextmanager
def read_copy(data: Path) -> Iterator[Store]:
    """A copy of the store among the temporary files, brought to this program's schema there. Nothing is written to the
    folder itself, whether or not a service runs on it."""
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
        store = Store(copy, connections=1)
        try:
            store.migrate()
            yield store
        finally:
            store.close()


@contextmanager
def open_store(data: Path, *, make: bool = False) -> Iterator[Store]:
    """The store of the folder, brought to this program's schema unless a service has it open; `make`: a folder that is
    not there is made. Refuses a running service of another schema, which only its own `mierctl` may write to."""
    if not make:
        require_data_folder(data)
    lock = lock_data(data)
    store = Store(data / DATABASE_FILE, connections=1)
    try:
        if lock is not None:
            with lock:
                store.migrate()
        elif not store.is_current():
            raise Refused(
                f"the service on {data} has another schema than this mierctl, or is just starting: use the mierctl "
                "that was installed with it, or try again"
            )
        yield store
    finally:
        store.close()
