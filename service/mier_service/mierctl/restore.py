"""`mierctl restore`: a data folder from a backup."""

from __future__ import annotations

from pathlib import Path

from mier_service import backups
from mier_service.mierctl.data_folder import DEFAULT_DATA


def restore(src: Path, data: Path = DEFAULT_DATA) -> None:
    """Make a data folder of the backup SRC, every file verified; never over one that is there.

    Args:
        src: folder that `mierctl backup` made.
        data: folder to make; it must not be there yet, or be empty.
    """
    made = backups.restore(src, data)
    print(f"{data}: sessions: {made.sessions}, transitions: {made.transitions}; start mier-serve with --data {data}")
