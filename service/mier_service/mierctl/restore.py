"""`mierctl restore`: a data folder from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mier_service.data import backups
from mier_service.mierctl.data_folder import DEFAULT_DATA, Data, StoreUrl
from mier_service.mierctl.output import Refused


def restore(
    src: Annotated[Path, typer.Argument(help="Folder that `mierctl backup` made.")],
    data: Data = DEFAULT_DATA,
    store_url: StoreUrl = None,
) -> None:
    """Makes a data folder of the backup SRC, every file verified; never over one that holds something."""
    if store_url:
        raise Refused(
            "a backup is restored to a data folder with a store in it, not to --store-url: a dump of a PostgreSQL goes "
            "back with pg_restore, beside its copy of the data folder (docs/operations.md)"
        )
    made = backups.restore(src, data)
    print(f"{data}: sessions: {made.sessions}, transitions: {made.transitions}; start mier-serve with --data {data}")
