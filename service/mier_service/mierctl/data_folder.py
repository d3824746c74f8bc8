"""A service's store and data folder as `mierctl` opens them: at rest, or under a running service of the same schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mier_service import store_url as stores
from mier_service.config import STORE_URL_VARIABLE
from mier_service.data_lock import lock_data
from mier_service.layout import DATABASE_FILE
from mier_service.mierctl.output import Refused
from mier_service.store import Store

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


def require_data_folder(data: Path) -> None:
    if not (data / DATABASE_FILE).is_file():
        raise Refused(
            f"{data} is no data folder of a service with a store of its own (it has no {DATABASE_FILE}): give --data "
            "the right one, or the --store-url"
        )


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
