"""What should be counted of what is stored, worked out from the tables and the files themselves."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from mier_service.access.key_bounds import ROW_BYTES
from mier_service.data.layout import Kind, content_files
from tests.stores import found_rows

_TABLES = ("model_contexts", "versions", "promotions", "operations", "transition_batches")


def counted(c: Connection) -> dict[str, int]:
    """Bytes by session, over all keys; under the empty name, those of kept replies."""
    found = found_rows(c, "SELECT session_id, sum(stored_bytes) FROM key_usage GROUP BY session_id")
    return {"": 0, **{session: int(stored_bytes) for session, stored_bytes in found}}


def stored(c: Connection, data: Path) -> dict[str, int]:
    """The same, from what is there."""
    found: dict[str, int] = {"": _number(c, "SELECT coalesce(sum(stored_bytes), 0) FROM idempotency_keys")}
    for (session,) in found_rows(c, "SELECT id FROM sessions"):
        rows = sum(_number(c, f"SELECT count(*) FROM {table} WHERE session_id = ?", session) for table in _TABLES)
        query = "SELECT coalesce(sum(length(rows) + length(policy_versions)), 0) FROM transition_batches"
        arrays = _number(c, f"{query} WHERE session_id = ?", session)
        query = "SELECT weights_hash, onnx_hash FROM versions WHERE session_id = ? AND origin = 'fine_tune'"
        files = sum(
            len(content_files(data, kind).get(name))
            for pair in found_rows(c, query, session)
            for kind, name in zip((Kind.WEIGHTS, Kind.POLICIES), pair, strict=True)
        )
        found[session] = ROW_BYTES * rows + arrays + files
    return found


def _number(c: Connection, query: str, *values: str) -> int:
    ((number,),) = found_rows(c, query, *values)
    return int(number)  # PostgreSQL's sums are decimals
