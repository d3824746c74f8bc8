"""Fine-tune operations: a queue with leases and turns. Works inside the caller's transaction.

          claim                    publish
    QUEUED ───► RUNNING ─────────────────────► SUCCEEDED
       ▲ release │   │ fail / cancel
       └─────────┘   └──────────► FAILED, CANCELLED          (QUEUED ─ cancel ─► CANCELLED)

Keys take turns, and so do the sessions of a key (`usage_rows` knows whose was when): none waits for all that another
asked for. Each claim adds 1 to `lease_token`; a worker's writes hold only under the token it claimed with, so one that
was taken for dead cannot touch what its successor does. Operations of a paused session are not claimed, but to be
cancelled: whoever was to do that may have died.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select, update

from mier_service.access.callers import ANONYMOUS
from mier_service.errors import operation_not_found
from mier_service.provenance import with_build
from mier_service.store import usage_rows
from mier_service.store.schema import key_usage, operations, sessions
from mier_service.store.session_rows import UNFINISHED, to_time
from mier_service.values import OperationErrorValue, OperationState, OperationValue, SessionState


class LeaseLost(Exception):
    """Another worker has the operation now, or it is gone."""


def add(
    c: Connection,
    operation: OperationValue,
    first_transition: int,
    last_batch_row: int,
    model_context_number: int,
    owner: str = ANONYMOUS,
    request_id: str | None = None,
    trace_context: str | None = None,
) -> None:
    """`request_id` and `trace_context` are of the request that asks for it."""
    row = operation.model_dump(exclude={"create_time", "update_time", "metrics", "error"}, mode="json")
    c.execute(
        insert(operations).values(
            **(row | {"cancel_requested": int(operation.cancel_requested)}),
            first_transition=first_transition,
            last_batch_row=last_batch_row,
            model_context_number=model_context_number,
            request_id=request_id,
            trace_context=trace_context,
            owner=owner,
            attempts_without_progress=0,
            lease_token=0,
            lease_until_s=0.0,
            revision=1,
            create_time_s=operation.create_time.timestamp(),
            update_time_s=operation.update_time.timestamp(),
        )
    )


def get_row(c: Connection, operation_id: str) -> Row[Any]:
    row = c.execute(select(operations).where(operations.c.id == operation_id)).one_or_none()
    if row is None:
        raise operation_not_found(operation_id)
    return row


def get(c: Connection, operation_id: str) -> OperationValue:
    return value(get_row(c, operation_id))


def count_unfinished(c: Connection, owner: str | None = None) -> int:
    """Of all, or of those that one key asked for."""
    statement = select(func.count()).select_from(operations).where(operations.c.state.in_(UNFINISHED))
    if owner is not None:
        statement = statement.where(operations.c.owner == owner)
    return int(c.execute(statement).scalar_one())


def unfinished_of_session(c: Connection, session_id: str) -> str | None:
    """Id of the session's unfinished operation, if there is one."""
    return c.execute(
        select(operations.c.id)
        .where(operations.c.session_id == session_id, operations.c.state.in_(UNFINISHED))
        .limit(1)
    ).scalar()


def of_task(c: Connection, session_id: str, first_transition: int) -> list[Row[Any]]:
    """The session's operations on data that begin there, oldest first."""
    o = operations.c
    statement = select(operations).where(o.session_id == session_id, o.first_transition == first_transition)
    return list(c.execute(statement.order_by(o.row)))


class Revision(NamedTuple):
    """Enough to tell whether an operation changed."""

    id: str
    session_id: str
    state: str
    revision: int


def revisions(c: Connection, ids: list[str]) -> list[Revision]:
    """Of all unfinished operations and of those named."""
    o = operations.c
    statement = select(o.id, o.session_id, o.state, o.revision).where(or_(o.state.in_(UNFINISHED), o.id.in_(ids)))
    return [Revision(*row) for row in c.execute(statement)]


def claim(c: Connection, now_s: float, lease_s: float) -> Row[Any] | None:
    """Takes an operation that waits, or whose worker is silent; None if there is none. Of the key whose last turn is
    longest ago, and of its sessions that one whose last turn is.
    Of workers that look at the same moment, each gets another one."""
    o = operations.c
    of_key, of_session = key_usage.alias(), key_usage.alias()
    candidate = (
        select(o.id, o.owner, o.session_id)
        .join(sessions, sessions.c.id == o.session_id)
        .outerjoin(of_key, and_(of_key.c.owner == o.owner, of_key.c.session_id == usage_rows.NO_SESSION))
        .outerjoin(of_session, and_(of_session.c.owner == o.owner, of_session.c.session_id == o.session_id))
        .where(_waits(now_s))
        .order_by(func.coalesce(of_key.c.turn, 0), func.coalesce(of_session.c.turn, 0), o.row)
        .limit(1)
        .with_for_update(of=operations, skip_locked=True)  # where workers are not one after another anyway
    )
    found = c.execute(candidate).one_or_none()
    if found is None:
        return None
    operation_id, owner, session_id = found
    usage_rows.take_turn(c, owner, session_id)
    return c.execute(
        update(operations)
        .where(o.id == operation_id)
        .values(
            state=OperationState.RUNNING.value,
            lease_token=o.lease_token + 1,
            lease_until_s=now_s + lease_s,
            attempts=o.attempts + 1,
            attempts_without_progress=o.attempts_without_progress + 1,
            revision=o.revision + 1,
            update_time_s=now_s,
        )
        .returning(operations)
    ).one()


def note_build(c: Connection, row: Row[Any], made_with: str) -> None:
    """Writes down what the worker that has just claimed it is of."""
    builds = with_build(row.made_with_json, made_with)
    c.execute(update(operations).where(operations.c.id == row.id).values(made_with_json=builds))


def another_waits(c: Connection, operation_id: str, now_s: float) -> bool:
    """Whether another operation than this one, which has its turn, could be taken."""
    waiting = select(operations.c.id).join(sessions, sessions.c.id == operations.c.session_id).where(_waits(now_s))
    return c.execute(waiting.where(operations.c.id != operation_id).limit(1)).scalar() is not None


def _waits(now_s: float) -> ColumnElement[bool]:
    o = operations.c
    return and_(
        or_(sessions.c.state != SessionState.PAUSED.value, o.cancel_requested == 1),
        or_(
            o.state == OperationState.QUEUED.value,
            and_(o.state == OperationState.RUNNING.value, o.lease_until_s < now_s),
        ),
    )


def change(c: Connection, operation_id: str, token: int, now_s: float, **columns: Any) -> Row[Any]:
    """Writes a worker's news under its token; the row as it is now. Raises `LeaseLost`."""
    o = operations.c
    row = c.execute(
        update(operations)
        .where(o.id == operation_id, o.lease_token == token, o.state == OperationState.RUNNING.value)
        .values(revision=o.revision + 1, update_time_s=now_s, **columns)
        .returning(operations)
    ).one_or_none()
    if row is None:
        raise LeaseLost(operation_id)
    return row


def renew(c: Connection, operation_id: str, token: int, until_s: float) -> None:
    """Keeps the lease; no news for watchers. Raises `LeaseLost`."""
    o = operations.c
    done = c.execute(
        update(operations)
        .where(o.id == operation_id, o.lease_token == token, o.state == OperationState.RUNNING.value)
        .values(lease_until_s=until_s)
    )
    if done.rowcount == 0:
        raise LeaseLost(operation_id)


def request_cancel(c: Connection, operation_id: str, now_s: float) -> OperationValue:
    """Cancels at once what no worker is at; tells the worker otherwise; leaves what is final as it is."""
    row = get_row(c, operation_id)
    if not OperationState(row.state).final:
        o = operations.c
        waiting = row.state == OperationState.QUEUED.value or row.lease_until_s < now_s
        c.execute(
            update(operations)
            .where(o.id == operation_id)
            .values(
                cancel_requested=1,
                state=OperationState.CANCELLED.value if waiting else row.state,
                lease_token=o.lease_token + int(waiting),
                revision=o.revision + 1,
                update_time_s=now_s,
            )
        )
    return get(c, operation_id)


def expire_leases(c: Connection) -> None:
    """At the start of the service: no worker of before counts as alive, and one that is can write no more. So what it
    put to be named next may be cleared away."""
    o = operations.c
    running = update(operations).where(o.state == OperationState.RUNNING.value)
    c.execute(running.values(lease_until_s=0.0, lease_token=o.lease_token + 1))


def save_hashes(c: Connection, session_id: str | None = None) -> set[str]:
    """Resume saves of unfinished operations (all of them, or one session's): the files that are in use."""
    statement = select(operations.c.save_hash).where(
        operations.c.save_hash.is_not(None), operations.c.state.in_(UNFINISHED)
    )
    if session_id is not None:
        statement = statement.where(operations.c.session_id == session_id)
    return set(c.execute(statement).scalars())


def value(row: Row[Any]) -> OperationValue:
    """The row as callers see it."""
    return OperationValue(
        id=row.id,
        session_id=row.session_id,
        state=OperationState(row.state),
        cancel_requested=bool(row.cancel_requested),
        updates_done=row.updates_done,
        updates_total=row.updates_total,
        metrics=json.loads(row.metrics_json) if row.metrics_json else None,
        seed=row.seed,
        transitions_used=row.transitions_used,
        start_version=row.start_version,
        result_version=row.result_version,
        error=OperationErrorValue.model_validate_json(row.error_json) if row.error_json else None,
        attempts=row.attempts,
        create_time=to_time(row.create_time_s),
        update_time=to_time(row.update_time_s),
        reason=row.reason,
    )
