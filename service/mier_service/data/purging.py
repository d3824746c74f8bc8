"""What a session leaves behind when it goes: its rows by cascade, and the files that only they named."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from mier_service.data.storage import Storage
from mier_service.store import operation_rows, session_rows


@dataclass(frozen=True)
class Remains:
    """What is to be dealt with once the rows are gone for good."""

    operation_id: str | None
    """The fine-tune that was unfinished."""
    versions: set[tuple[str, str]]
    """(weights, ONNX) hashes."""
    saves: set[str]


def remove_rows(c: Connection, session_id: str) -> Remains:
    """Deletes the session and everything that belongs to it, in the caller's transaction."""
    remains = Remains(
        operation_rows.unfinished_of_session(c, session_id),
        session_rows.file_hashes(c, session_id),
        operation_rows.save_hashes(c, session_id),
    )
    session_rows.delete_session(c, session_id)
    return remains


def remove_files(storage: Storage, remains: Remains) -> None:
    """Removes the files that no row names any more. After a crash before it, the next start of the service does."""
    storage.drop_unused(remains.versions, remains.saves)
