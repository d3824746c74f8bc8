"""What each key has stored, and when it last had its turn. Works inside the caller's transaction.

Bytes are counted in the transaction that stores them, for the key whose call it is, by session; so deleting a session
gives back what every key stored in it. Counted are the arrays of transitions, the files of fine-tuned versions (in
full, also where an equal version shares them), kept replies, and `ROW_BYTES` for each row that comes with them. The row
with no session has the replies kept under idempotency keys, which outlive sessions, and the turn of the key itself.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from mier_service.store.schema import key_usage as usage

NO_SESSION = ""


def add(c: Connection, owner: str, session_id: str, stored_bytes: int) -> None:
    """Counts what was stored; a negative number gives back."""
    _change(c, owner, session_id, {"stored_bytes": usage.c.stored_bytes + stored_bytes}, stored_bytes)


def stored_bytes(c: Connection, owner: str) -> int:
    """In all sessions, and the replies."""
    statement = select(func.coalesce(func.sum(usage.c.stored_bytes), 0)).where(usage.c.owner == owner)
    return int(c.execute(statement).scalar_one())


def give_back(c: Connection, session_id: str) -> None:
    """The session is deleted."""
    c.execute(delete(usage).where(usage.c.session_id == session_id))


def take_turn(c: Connection, owner: str, session_id: str) -> None:
    """The key, and its session, are the last to have had a turn. A key's stays on record when its sessions go."""
    last = c.execute(select(func.max(usage.c.turn)).where(usage.c.session_id == NO_SESSION)).scalar() or 0
    for row in (NO_SESSION, session_id):
        _change(c, owner, row, {"turn": last + 1}, 0, last + 1)


def _change(
    c: Connection, owner: str, session_id: str, change: dict[str, Any], stored_bytes: int, turn: int = 0
) -> None:
    """Makes the change, or the row with these values."""
    insert = postgresql.insert if c.dialect.name == "postgresql" else sqlite.insert
    row = insert(usage).values(owner=owner, session_id=session_id, stored_bytes=stored_bytes, turn=turn)
    # One statement: where writes about several sessions go on side by side, they share the row of their key.
    c.execute(row.on_conflict_do_update(index_elements=[usage.c.owner, usage.c.session_id], set_=change))
