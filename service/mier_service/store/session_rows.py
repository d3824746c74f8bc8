"""Rows of sessions, model contexts and versions <-> values. Every function works inside the caller's transaction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from mier_service.access.callers import ANONYMOUS
from mier_service.errors import session_not_found, version_not_found
from mier_service.store import return_rows, shadow_rows, usage_rows
from mier_service.store.schema import model_contexts, operations, sessions, versions
from mier_service.values import (
    ActionLimitsValue,
    EnvironmentValue,
    FallbackKind,
    GateValue,
    ModelContextValue,
    OperationState,
    Promotion,
    ReturnsValue,
    SessionMode,
    SessionState,
    SessionValue,
    ShadowRule,
    ShadowState,
    ShadowValue,
    VersionOrigin,
    VersionValue,
    WindowValue,
)

UNFINISHED = (OperationState.QUEUED.value, OperationState.RUNNING.value)
_IDS_AT_ONCE = 500
"""SQLite bounds the parameters of a statement."""


def to_time(time_s: float) -> datetime:
    return datetime.fromtimestamp(time_s, UTC)


def context_blob(context: npt.ArrayLike) -> bytes:
    """float32 [context_dim] -> bytes."""
    return np.asarray(context, "<f4").tobytes()


def context_list(blob: bytes) -> list[float]:
    return [float(x) for x in np.frombuffer(blob, "<f4")]


def add_session(c: Connection, session: SessionValue, owner: str = ANONYMOUS) -> None:
    """A session with its first model context; its version 1 is added apart."""
    c.execute(
        insert(sessions).values(
            id=session.id,
            checkpoint=session.checkpoint,
            checkpoint_hash=session.checkpoint_hash,
            environment_json=session.environment.model_dump_json(),
            seed=session.seed,
            state=session.state.value,
            active_version=session.active_version,
            transitions_count=session.transitions_count,
            create_time_s=session.create_time.timestamp(),
            pinned=int(session.pinned),
            last_used_s=session.create_time.timestamp(),
            owner=owner,
            fallback=session.fallback.value if session.fallback else None,
            action_limits_json=session.action_limits.model_dump_json() if session.action_limits else None,
            max_observation_age_ms=session.max_observation_age_ms,
            shadow_json=session.shadow.model_dump_json() if session.shadow else None,
        )
    )
    add_model_context(c, session.id, session.model_context)


def add_model_context(
    c: Connection, session_id: str, value: ModelContextValue, following_json: str | None = None
) -> None:
    c.execute(
        insert(model_contexts).values(
            session_id=session_id,
            number=value.number,
            context=context_blob(value.values),
            heldout_nll_before=value.heldout_nll_before,
            heldout_nll_after=value.heldout_nll_after,
            ood_score=value.ood_score,
            transitions_used=value.transitions_used,
            window_json=value.window.model_dump_json() if value.window else None,
            create_time_s=value.create_time.timestamp(),
            ood_percentile=value.ood_percentile,
            following_json=following_json,
        )
    )


def add_version(c: Connection, session_id: str, value: VersionValue, onnx_hash: str) -> None:
    """Adds the version; what makes it act is `promotion_rows.swap`."""
    row = value.model_dump(exclude={"policy_context", "create_time", "gate", "shadow", "returns"}, mode="json")
    c.execute(
        insert(versions).values(
            **row,
            gate_json=value.gate.model_dump_json() if value.gate else None,
            session_id=session_id,
            onnx_hash=onnx_hash,
            policy_context=context_blob(value.policy_context),
            create_time_s=value.create_time.timestamp(),
        )
    )


def get_session(c: Connection, session_id: str) -> SessionValue:
    return _session(c, _session_row(c, session_id))


def require_session(c: Connection, session_id: str) -> SessionState:
    """Its state; refuses an unknown id."""
    return SessionState(_session_row(c, session_id).state)


def list_sessions(c: Connection, after_row: int, limit: int) -> tuple[list[SessionValue], int | None]:
    """A page of sessions, and the row after which the next one starts (None: there is none)."""
    rows = c.execute(select(sessions).where(sessions.c.row > after_row).order_by(sessions.c.row).limit(limit + 1)).all()
    more = rows[limit - 1].row if len(rows) > limit else None
    return [_session(c, row) for row in rows[:limit]], more


def set_state(c: Connection, session_id: str, state: SessionState) -> None:
    _session_row(c, session_id)
    c.execute(update(sessions).where(sessions.c.id == session_id).values(state=state.value))


def set_mode(c: Connection, session_id: str, mode: SessionMode) -> None:
    _session_row(c, session_id)
    c.execute(update(sessions).where(sessions.c.id == session_id).values(mode=mode.value))


def begin_task(c: Connection, session_id: str, task_start: int) -> None:
    """The task changed: what was stored before that many transitions is of earlier ones."""
    new = {"task_start": task_start, "task_number": sessions.c.task_number + 1}
    c.execute(update(sessions).where(sessions.c.id == session_id).values(**new))


def following_of(c: Connection, session_id: str, model_context: int) -> str | None:
    """What following had come to at that model context; None where it was not followed."""
    m = model_contexts.c
    statement = select(m.following_json).where(m.session_id == session_id, m.number == model_context)
    return c.execute(statement).scalar()


def touch(c: Connection, session_ids: set[str], now_s: float) -> None:
    """They were used now."""
    ids = sorted(session_ids)
    for start in range(0, len(ids), _IDS_AT_ONCE):
        part = ids[start : start + _IDS_AT_ONCE]
        c.execute(update(sessions).where(sessions.c.id.in_(part)).values(last_used_s=now_s))


def unused_since(c: Connection, time_s: float, limit: int, session_id: str | None = None) -> list[str]:
    """Sessions (or that one alone) that nobody used since and that are not being fine-tuned, longest unused first."""
    learning = select(operations.c.session_id).where(operations.c.state.in_(UNFINISHED))
    statement = select(sessions.c.id).where(sessions.c.last_used_s < time_s, sessions.c.id.not_in(learning))
    if session_id is not None:
        statement = statement.where(sessions.c.id == session_id)
    return list(c.execute(statement.order_by(sessions.c.last_used_s).limit(limit)).scalars())


class Acts(NamedTuple):
    """What of a session is kept by whoever acts for it."""

    version: int
    """The one that should act."""
    model_context: int
    """Number of the newest."""
    shadow: int
    """The candidate that acts in shadow; 0: none."""


def what_acts(c: Connection, session_ids: list[str]) -> dict[str, Acts]:
    """Of those that are there."""
    m = model_contexts.c
    newest = select(func.max(m.number)).where(m.session_id == sessions.c.id).scalar_subquery()
    shadow = shadow_rows.running_version()
    found: dict[str, Acts] = {}
    for start in range(0, len(session_ids), _IDS_AT_ONCE):
        part = sessions.c.id.in_(session_ids[start : start + _IDS_AT_ONCE])
        for row in c.execute(select(sessions.c.id, sessions.c.active_version, newest, shadow).where(part)):
            found[row[0]] = Acts(row[1], row[2], row[3] or 0)
    return found


def add_to_count(c: Connection, session_id: str, stored: int, now_s: float) -> int:
    """Counts new transitions, and that the session was used; the new total."""
    statement = (
        update(sessions)
        .where(sessions.c.id == session_id)
        .values(transitions_count=sessions.c.transitions_count + stored, last_used_s=now_s)
        .returning(sessions.c.transitions_count)
    )
    return int(c.execute(statement).scalar_one())


def delete_session(c: Connection, session_id: str) -> None:
    """With everything that belongs to it (by cascade)."""
    _session_row(c, session_id)
    c.execute(delete(sessions).where(sessions.c.id == session_id))
    usage_rows.give_back(c, session_id)


def newest_version_number(c: Connection, session_id: str) -> int:
    statement = select(func.max(versions.c.number)).where(versions.c.session_id == session_id)
    return int(c.execute(statement).scalar_one() or 0)


def get_version(c: Connection, session_id: str, number: int) -> tuple[VersionValue, str]:
    """A version, and the hash of its ONNX file; refuses an unknown number."""
    statement = select(versions).where(versions.c.session_id == session_id, versions.c.number == number)
    row = c.execute(statement).one_or_none()
    if row is None:
        raise version_not_found(session_id, number)
    return _version(row), row.onnx_hash


def list_versions(
    c: Connection, session_id: str, after_number: int, limit: int
) -> tuple[list[VersionValue], int | None]:
    """A page of versions with their returns, and the number after which the next one starts (None: there is none)."""
    task_start = _session_row(c, session_id).task_start
    rows = c.execute(
        select(versions)
        .where(versions.c.session_id == session_id, versions.c.number > after_number)
        .order_by(versions.c.number)
        .limit(limit + 1)
    ).all()
    more = rows[limit - 1].number if len(rows) > limit else None
    page = [_version(row) for row in rows[:limit]]
    numbers = [version.number for version in page]
    returns = return_rows.of_versions(c, session_id, task_start, numbers)
    shadows = shadow_rows.of_versions(c, session_id, numbers)
    return [_seen(version, returns.get(version.number), shadows.get(version.number)) for version in page], more


def _seen(version: VersionValue, returns: ReturnsValue | None, shadow: ShadowValue | None) -> VersionValue:
    """With what was seen of it since it was published."""
    promotion = version.promotion
    if shadow is not None and shadow.state is not ShadowState.PASSED:
        rejected = shadow.state is ShadowState.REJECTED
        promotion = Promotion.REJECTED if rejected else Promotion.INSUFFICIENT_DATA
    return version.model_copy(update={"promotion": promotion, "returns": returns, "shadow": shadow})


def file_hashes(c: Connection, session_id: str | None = None) -> set[tuple[str, str]]:
    """(weights, ONNX) hashes of the versions, of one session or of all: the files that are in use."""
    statement = select(versions.c.weights_hash, versions.c.onnx_hash).distinct()
    if session_id is not None:
        statement = statement.where(versions.c.session_id == session_id)
    return {(row.weights_hash, row.onnx_hash) for row in c.execute(statement)}


def onnx_of(c: Connection, checkpoint_hash: str, weights_hash: str) -> str | None:
    """Hash of the ONNX file of these weights under that checkpoint, if some version has them. Under another checkpoint
    the same weights may be another policy: bounds of actions are in the file, not in the weights."""
    statement = select(versions.c.onnx_hash).where(
        versions.c.checkpoint_hash == checkpoint_hash, versions.c.weights_hash == weights_hash
    )
    return c.execute(statement.limit(1)).scalar()


def named_files(c: Connection, pairs: set[tuple[str, str]]) -> tuple[set[str], set[str]]:
    """Which of these (weights, ONNX) hashes some version names, each kind for itself."""
    found: tuple[set[str], set[str]] = (set(), set())
    for kind, column in enumerate((versions.c.weights_hash, versions.c.onnx_hash)):
        for name in {pair[kind] for pair in pairs}:
            if c.execute(select(column).where(column == name).limit(1)).scalar() is not None:
                found[kind].add(name)
    return found


def owner_of(c: Connection, session_id: str) -> str:
    """Id of the key that opened it."""
    return str(_session_row(c, session_id).owner)


def count_sessions(c: Connection, owner: str | None = None) -> int:
    """Of all, or of those that one key opened."""
    statement = select(func.count()).select_from(sessions)
    if owner is not None:
        statement = statement.where(sessions.c.owner == owner)
    return int(c.execute(statement).scalar_one())


def with_fallback(
    c: Connection, limit: int
) -> list[tuple[SessionValue, tuple[VersionValue, str], tuple[VersionValue, str]]]:
    """Sessions that declare a fallback, the most recently used last, with their first and their active version."""
    statement = select(sessions).where(sessions.c.fallback.is_not(None)).order_by(sessions.c.last_used_s.desc())
    found = [_session(c, row) for row in c.execute(statement.limit(limit)).all()]
    return [(s, get_version(c, s.id, 1), get_version(c, s.id, s.active_version)) for s in reversed(found)]


def newest_model_context(c: Connection, session_id: str) -> ModelContextValue:
    m = model_contexts
    return _model_context(
        c.execute(select(m).where(m.c.session_id == session_id).order_by(m.c.number.desc()).limit(1)).one()
    )


def get_model_context(c: Connection, session_id: str, number: int) -> ModelContextValue:
    m = model_contexts
    return _model_context(c.execute(select(m).where(m.c.session_id == session_id, m.c.number == number)).one())


def _model_context(row: Row[Any]) -> ModelContextValue:
    return ModelContextValue(
        number=row.number,
        values=context_list(row.context),
        heldout_nll_before=row.heldout_nll_before,
        heldout_nll_after=row.heldout_nll_after,
        ood_score=row.ood_score,
        transitions_used=row.transitions_used,
        window=WindowValue.model_validate_json(row.window_json) if row.window_json else None,
        create_time=to_time(row.create_time_s),
        ood_percentile=row.ood_percentile,
    )


def _session_row(c: Connection, session_id: str) -> Row[Any]:
    row = c.execute(select(sessions).where(sessions.c.id == session_id)).one_or_none()
    if row is None:
        raise session_not_found(session_id)
    return row


def _session(c: Connection, row: Row[Any]) -> SessionValue:
    return SessionValue(
        id=row.id,
        checkpoint=row.checkpoint,
        checkpoint_hash=row.checkpoint_hash,
        environment=EnvironmentValue.model_validate_json(row.environment_json),
        seed=row.seed,
        state=SessionState(row.state),
        active_version=row.active_version,
        model_context=newest_model_context(c, row.id),
        transitions_count=row.transitions_count,
        create_time=to_time(row.create_time_s),
        pinned=bool(row.pinned),
        mode=SessionMode(row.mode),
        task_number=row.task_number,
        task_start=row.task_start,
        fallback=FallbackKind(row.fallback) if row.fallback else None,
        action_limits=ActionLimitsValue.model_validate_json(row.action_limits_json) if row.action_limits_json else None,
        max_observation_age_ms=row.max_observation_age_ms,
        shadow=ShadowRule.model_validate_json(row.shadow_json) if row.shadow_json else None,
    )


def _version(row: Row[Any]) -> VersionValue:
    return VersionValue(
        number=row.number,
        parent=row.parent,
        weights_hash=row.weights_hash,
        policy_context=context_list(row.policy_context),
        model_context_number=row.model_context_number,
        origin=VersionOrigin(row.origin),
        promotion=Promotion(row.promotion),
        operation_id=row.operation_id,
        checkpoint_hash=row.checkpoint_hash,
        transitions_used=row.transitions_used,
        seed=row.seed,
        configuration_json=row.configuration_json,
        create_time=to_time(row.create_time_s),
        checkpoint=row.checkpoint,
        gate=GateValue.model_validate_json(row.gate_json) if row.gate_json else None,
    )
