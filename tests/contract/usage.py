"""What should be counted of what is stored, worked out from the tables and the files themselves."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mier_service.key_bounds import ROW_BYTES
from mier_service.layout import Kind, content_files

_TABLES = ("model_contexts", "versions", "promotions", "operations", "transition_batches")


def counted(c: sqlite3.Connection) -> dict[str, int]:
    """Bytes by session, over all keys; under the empty name, those of kept replies."""
    return {"": 0, **dict(c.execute("SELECT session_id, sum(stored_bytes) FROM key_usage GROUP BY session_id"))}


def stored(c: sqlite3.Connection, data: Path) -> dict[str, int]:
    """The same, from what is there."""
    found: dict[str, int] = {"": c.execute("SELECT coalesce(sum(stored_bytes), 0) FROM idempotency_keys").fetchone()[0]}
    for (session,) in c.execute("SELECT id FROM sessions").fetchall():
        rows = sum(
            c.execute(f"SELECT count(*) FROM {table} WHERE session_id = ?", (session,)).fetchone()[0]
            for table in _TABLES
        )
        query = "SELECT coalesce(sum(length(rows) + length(policy_versions)), 0) FROM transition_batches"
        (arrays,) = c.execute(f"{query} WHERE session_id = ?", (session,)).fetchone()
        query = "SELECT weights_hash, onnx_hash FROM versions WHERE session_id = ? AND origin = 'fine_tune'"
        files = sum(
            len(content_files(data, kind).get(name))
            for pair in c.execute(query, (session,)).fetchall()
            for kind, name in zip((Kind.WEIGHTS, Kind.POLICIES), pair, strict=True)
        )
        found[session] = ROW_BYTES * rows + arrays + files
    return found
