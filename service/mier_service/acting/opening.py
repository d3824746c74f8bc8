"""Reading the files of a policy version: where that fails, callers are told why in the service's own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mier_service.data.files import DamagedFile
from mier_service.errors import Reason, ServiceError
from mier_service.store.store import storage_unavailable

Opened = TypeVar("Opened")


def open_version(session_id: str, number: int, load: Callable[[], Opened]) -> Opened:
    """What `load` reads of a version's files; refused as callers are told of it where that fails."""
    try:
        return load()
    except OSError as error:
        raise storage_unavailable(error) from error
    except DamagedFile as error:
        raise ServiceError(
            Reason.VERSION_UNUSABLE,
            f"version {number} of session {session_id} cannot act: {error}. Restore the data folder "
            "from a backup, or fine-tune a new session",
        ) from error
