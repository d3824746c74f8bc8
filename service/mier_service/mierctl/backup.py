"""`mierctl backup`: a copy of everything durable, also while the service runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mier_service.data.backups import back_up
from mier_service.data.places import place_at
from mier_service.mierctl.data_folder import DEFAULT_DATA, Data, FilesUrl, StoreUrl
from mier_service.mierctl.output import Refused, note


def backup(
    dest: Annotated[Path, typer.Argument(help="Folder to make; it must not be there yet, or be empty.")],
    data: Data = DEFAULT_DATA,
    store_url: StoreUrl = None,
    files_url: FilesUrl = None,
) -> None:
    """Copies a data folder, and its files at a URL, to DEST: one consistent moment; its service may be running."""
    if store_url:
        raise Refused(
            "expected a store in the data folder, got --store-url: first `pg_dump --format=custom` of the database, "
            "then a copy of the data folder, in this order (docs/operations.md)"
        )
    made = back_up(data, dest, time.time(), place_at(files_url or data))
    size_mib = sum(file.size_bytes for file in made.files.values()) / 2**20
    print(
        f"{dest}: sessions: {made.sessions}, transitions: {made.transitions}, "
        f"files: {len(made.files)} ({size_mib:.1f} MiB)"
    )
    if made.checkpoints:
        names = ", ".join(f"{name} ({digest[:12]}...)" for digest, name in sorted(made.checkpoints.items()))
        note(f"checkpoints are not part of it; its sessions are on: {names}")
