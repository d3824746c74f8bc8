"""The record of which version acts: the only way in which it changes. Works inside the caller's transaction.

Invariants
- A swap and its record are one transaction; a record is never changed (a trigger refuses it).
- A session's checkpoint is that of its active version, and its newest model context was inferred under that checkpoint.
  So a swap to a version of another checkpoint takes the session back there, with the context of that time.
- Rolling back undoes swaps as a stack: each swap pushes what it made act, a rollback takes the top away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from mier_service.store import session_rows, shadow_rows
from mier_service.store.schema import promotions, sessions
from mier_service.store.session_rows import to_time
from mier_service.values import PromotionKind, PromotionRecordValue, SessionValue, VersionValue

SERVICE = "service"
"""Who it was, where an adaptation or a fine-tune published, or returns that fell rolled back."""


@dataclass(frozen=True)
class Why:
    """What was done, by whom, for what reason, and when."""

    kind: PromotionKind
    who: str
    reason: str
    time_s: float


def record(c: Connection, session_id: str, from_version: int, to_version: int, why: Why) -> None:
    """Adds an entry."""
    c.execute(
        insert(promotions).values(
            session_id=session_id,
            kind=why.kind.value,
            from_version=from_version,
            to_version=to_version,
            who=why.who,
            reason=why.reason,
            create_time_s=why.time_s,
        )
    )
    session_rows.touch(c, {session_id}, why.time_s)


def swap(c: Connection, session: SessionValue, to: VersionValue, why: Why) -> None:
    """Makes the version act, whatever acted before, and takes the session to the version's checkpoint."""
    columns: dict[str, Any] = {"active_version": to.number}
    if to.checkpoint_hash != session.checkpoint_hash:
        columns |= {"checkpoint": to.checkpoint, "checkpoint_hash": to.checkpoint_hash}
        context = session_rows.get_model_context(c, session.id, to.model_context_number)
        newest = session_rows.newest_model_context(c, session.id)
        if newest.number != context.number:
            renumbered = context.model_copy(update={"number": newest.number + 1, "create_time": to_time(why.time_s)})
            session_rows.add_model_context(c, session.id, renumbered)
    c.execute(update(sessions).where(sessions.c.id == session.id).values(**columns))
    shadow_rows.supersede_unless_same(c, session.id, to.number, to.weights_hash, why.time_s)
    record(c, session.id, session.active_version, to.number, why)


def set_pinned(c: Connection, session_id: str, pinned: bool) -> None:
    c.execute(update(sessions).where(sessions.c.id == session_id).values(pinned=int(pinned)))


def acted_before(c: Connection, session_id: str) -> int | None:
    """The version that a rollback returns to; None if nothing acted before the active one."""
    p = promotions.c
    stack: list[int] = []
    statement = select(p.kind, p.to_version).where(p.session_id == session_id, p.from_version != p.to_version)
    for kind, to_version in c.execute(statement.order_by(p.row)):
        if kind == PromotionKind.ROLLBACK.value:
            stack.pop()
        else:
            stack.append(to_version)
    return stack[-2] if len(stack) > 1 else None


def who_made_it_act(c: Connection, session_id: str) -> str:
    """Of the version that acts; whoever pinned what acted already made nothing act."""
    p = promotions.c
    statement = select(p.who).where(p.session_id == session_id, p.from_version != p.to_version)
    return str(c.execute(statement.order_by(p.row.desc()).limit(1)).scalar() or "")


def rolled_back_by_itself(c: Connection, session_id: str) -> set[int]:
    """Versions whose returns fell."""
    p = promotions.c
    statement = select(p.from_version).where(
        p.session_id == session_id, p.kind == PromotionKind.ROLLBACK.value, p.who == SERVICE
    )
    return set(c.execute(statement).scalars())


def list_promotions(
    c: Connection, session_id: str, after_row: int, limit: int
) -> tuple[list[PromotionRecordValue], int | None]:
    """A page of the record, and the row after which the next one starts (None: there is none)."""
    session_rows.require_session(c, session_id)
    p = promotions.c
    statement = select(promotions).where(p.session_id == session_id, p.row > after_row).order_by(p.row)
    rows = c.execute(statement.limit(limit + 1)).all()
    more = rows[limit - 1].row if len(rows) > limit else None
    return [_value(row) for row in rows[:limit]], more


def _value(row: Row[Any]) -> PromotionRecordValue:
    return PromotionRecordValue(
        kind=PromotionKind(row.kind),
        from_version=row.from_version,
        to_version=row.to_version,
        who=row.who,
        reason=row.reason,
        create_time=to_time(row.create_time_s),
    )
