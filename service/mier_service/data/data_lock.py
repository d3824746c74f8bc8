"""Who uses a data folder: one service, which alone publishes; or, where the store is elsewhere, as many as like.

Those of the second kind share the lock. The first of them has it to itself for as long as it prepares the store and the
folder, and so knows that nobody else is at work there.
"""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

from mier_service.config import CannotStart
from mier_service.data.durable import make_folder

_PREPARED_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.05


def lock_data(data: Path) -> IO[str] | None:
    """Held until closed, or until the process ends; None if another process holds it."""
    file = _open(data)
    if _flock(file, fcntl.LOCK_EX):
        return file
    file.close()
    return None


def join_data(data: Path) -> tuple[IO[str], bool] | None:
    """Held together with others of the kind; and whether it is held alone so far, until `let_others_join`. None if a
    service of the first kind holds it."""
    file = _open(data)
    deadline_s = time.monotonic() + _PREPARED_WITHIN_S
    while time.monotonic() < deadline_s:
        if _flock(file, fcntl.LOCK_EX):
            return file, True
        if _flock(file, fcntl.LOCK_SH):
            return file, False
        time.sleep(_LOOK_EVERY_S)  # somebody prepares
    file.close()
    return None


def let_others_join(file: IO[str]) -> None:
    """Ends being alone."""
    fcntl.flock(file, fcntl.LOCK_SH)


def _open(data: Path) -> IO[str]:
    try:
        make_folder(data)
        return (data / "lock").open("w")
    except OSError as error:
        raise CannotStart(f"the data folder {data} cannot be used: {error.strerror}") from error


def _flock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
