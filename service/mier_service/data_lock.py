"""One owner of a data folder at a time: two services on it would both think that they alone publish."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from mier_service.config import CannotStart
from mier_service.files import make_folder


def lock_data(data: Path) -> IO[str] | None:
    """Held until closed, or until the process ends; None if another process holds it."""
    try:
        make_folder(data)
        file = (data / "lock").open("w")
    except OSError as error:
        raise CannotStart(f"the data folder {data} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
