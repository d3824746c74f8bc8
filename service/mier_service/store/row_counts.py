"""How much there is in the store: counted in the database, for metrics and probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Table, func, select

from mier_service.store.schema import operations, sessions, versions
from mier_service.values import OperationState, SessionState, VersionOrigin


@dataclass(frozen=True)
class StoreFigures:
    """At one moment."""

    sessions: dict[str, int]
    """By state."""
    finetunes: dict[str, int]
    """Those that are not final, by state."""
    versions: dict[str, int]
    """By origin."""
    transitions: int
    oldest_waiting_s: float
    """How long the oldest fine-tune has waited for a worker; 0: none does."""
    database_bytes: int = 0
    disk_free_bytes: int = 0


def count(c: Connection, now_s: float) -> StoreFigures:
    """All but the bytes."""
    queued = operations.c.state == OperationState.QUEUED.value
    oldest_s = c.execute(select(func.min(operations.c.create_time_s)).where(queued)).scalar()
    transitions = c.execute(select(func.coalesce(func.sum(sessions.c.transitions_count), 0))).scalar_one()
    unfinished = [state.value for state in OperationState if not state.final]
    by_state = _by(c, operations, operations.c.state, unfinished)
    return StoreFigures(
        sessions=_by(c, sessions, sessions.c.state, [state.value for state in SessionState]),
        finetunes=by_state,
        versions=_by(c, versions, versions.c.origin, [origin.value for origin in VersionOrigin]),
        transitions=int(transitions),
        oldest_waiting_s=0.0 if oldest_s is None else max(0.0, now_s - oldest_s),
    )


def _by(c: Connection, table: Table, column: Column[Any], known: list[str]) -> dict[str, int]:
    """Rows of the table for each known value of the column, 0 included."""
    statement = select(column, func.count()).select_from(table).where(column.in_(known)).group_by(column)
    return dict.fromkeys(known, 0) | {str(value): int(number) for value, number in c.execute(statement)}
