"""`mierctl restore`: a data folder from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mier_service import backups
from mier_service.mierctl.data_folder import DEFAULT_DATA, Data


def restore(
    src: Annotated[Path, typer.Argument(help="Folder that `mierctl backup` made.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Makes a data folder of the backup SRC, every file verified; never over one that holds something."""
    made = backups.restore(src, data)
    print(f"{data}: sessions: {made.sessions}, transitions: {made.transitions}; start mier-serve with --data {data}")
