"""What happened to a session, newest first and never all of it: what a person looks at. Only reads.

Works inside the caller's transaction. What a program needs whole it gets in pages elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Table, func, select

from mier_service.store import operation_rows, promotion_rows, session_rows
from mier_service.store.schema import (
    episode_returns,
    model_contexts,
    operations,
    promotions,
    sessions,
    transition_batches,
    versions,
)
from mier_service.values import (
    EpisodeReturnValue,
    ModelContextValue,
    OperationState,
    OperationValue,
    PromotionRecordValue,
    VersionValue,
)

T = TypeVar("T")
_UNFINISHED = tuple(state.value for state in OperationState if not state.final)


def mark(c: Connection, session_id: str) -> str:
    """Another text whenever anything of the session is; the refusal of one that is not there is the caller's."""
    s, o = sessions.c, operations.c

    def newest(table: Table, column: ColumnElement[Any]) -> Any:
        return select(func.max(column)).where(table.c.session_id == session_id).scalar_subquery()

    statement = select(
        s.state, s.mode, s.pinned, s.checkpoint_hash, s.active_version, s.transitions_count, s.task_number,
        newest(versions, versions.c.number),
        newest(model_contexts, model_contexts.c.number),
        newest(promotions, promotions.c.row),
        newest(transition_batches, transition_batches.c.row),
        select(func.sum(o.revision)).where(o.session_id == session_id).scalar_subquery(),
    ).where(s.id == session_id)  # fmt: skip
    return "/".join(map(str, c.execute(statement).one()))


def newest_versions(c: Connection, session_id: str, limit: int) -> list[VersionValue]:
    """With their returns."""
    before = max(0, session_rows.newest_version_number(c, session_id) - limit)
    return session_rows.list_versions(c, session_id, before, limit)[0][::-1]


def newest_contexts(c: Connection, session_id: str, limit: int) -> list[ModelContextValue]:
    number = model_contexts.c.number
    return _newest(c, model_contexts, number, session_id, limit, session_rows.model_context_value)


def newest_operations(c: Connection, session_id: str, limit: int) -> list[OperationValue]:
    return _newest(c, operations, operations.c.row, session_id, limit, operation_rows.value)


def newest_promotions(c: Connection, session_id: str, limit: int) -> list[PromotionRecordValue]:
    return _newest(c, promotions, promotions.c.row, session_id, limit, promotion_rows.value)


def newest_returns(c: Connection, session_id: str, limit: int) -> list[EpisodeReturnValue]:
    """Of whole episodes, in the order in which they were stored: robots may number theirs as they like."""
    r = episode_returns.c
    whole = select(r.episode, r.total, r.policy_version).where(r.session_id == session_id, r.total.is_not(None))
    newest = whole.order_by(r.first_transition.desc(), r.episode.desc()).limit(limit)
    return [EpisodeReturnValue(episode=e, total=t, policy_version=v) for e, t, v in c.execute(newest)]


def unfinished(c: Connection, limit: int) -> list[OperationValue]:
    """Of all sessions, those that run before those that wait."""
    o = operations.c
    statement = select(operations).where(o.state.in_(_UNFINISHED)).order_by(o.state.desc(), o.row)
    return [operation_rows.value(row) for row in c.execute(statement.limit(limit))]


def _newest(
    c: Connection,
    table: Table,
    order: ColumnElement[Any],
    session_id: str,
    limit: int,
    value: Callable[[Row[Any]], T],
) -> list[T]:
    statement = select(table).where(table.c.session_id == session_id).order_by(order.desc()).limit(limit)
    return [value(row) for row in c.execute(statement)]
