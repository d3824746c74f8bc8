"""Candidates in shadow. Works inside the caller's transaction.

        begin                  enough acts, within the limit
    ─────────► RUNNING ───────────────────────────────────────► PASSED    (and acts, in the same transaction)
                  │ ├── a difference beyond the limit ────────► REJECTED
                  │ └── something else came to act, the task
                  │     changed, another candidate came ──────► SUPERSEDED

Of a session at most one is running.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, Row, ScalarSelect, and_, insert, select, update

from mier.shadow import Evidence
from mier_service.store.schema import sessions, shadows, versions
from mier_service.values import ShadowRule, ShadowState, ShadowValue


class Running(NamedTuple):
    """A candidate that acts in shadow."""

    version: int
    rule: ShadowRule
    evidence: Evidence


def begin(c: Connection, session_id: str, version: int, rule: ShadowRule, incumbent: int, now_s: float) -> None:
    """In the place of what was in shadow until now."""
    supersede(c, session_id, f"version {version} came into shadow", now_s)
    c.execute(
        insert(shadows).values(
            session_id=session_id,
            version=version,
            state=ShadowState.RUNNING.value,
            rule_json=rule.model_dump_json(),
            incumbent_version=incumbent,
            differences=b"",
            at_limit=0,
            acting_at_limit=0,
            reason="",
            update_time_s=now_s,
        )
    )


def running(c: Connection, session_id: str) -> Running | None:
    row = c.execute(select(shadows).where(*_running(session_id))).one_or_none()
    return None if row is None else Running(row.version, ShadowRule.model_validate_json(row.rule_json), _evidence(row))


def running_version() -> ScalarSelect[int]:
    """The same, as a column of a statement on sessions."""
    in_shadow = shadows.c.state == ShadowState.RUNNING.value
    return select(shadows.c.version).where(shadows.c.session_id == sessions.c.id, in_shadow).scalar_subquery()


def change(
    c: Connection, session_id: str, evidence: Evidence, now_s: float, state: ShadowState, reason: str = ""
) -> None:
    """Of the one that is running."""
    c.execute(
        update(shadows)
        .where(*_running(session_id))
        .values(
            state=state.value,
            differences=evidence.differences.astype("<f4").tobytes(),
            at_limit=evidence.at_limit,
            acting_at_limit=evidence.acting_at_limit,
            reason=reason,
            update_time_s=now_s,
        )
    )


def supersede(c: Connection, session_id: str, reason: str, now_s: float) -> None:
    """Ends the one that is running, if there is one."""
    new = {"state": ShadowState.SUPERSEDED.value, "reason": reason, "update_time_s": now_s}
    c.execute(update(shadows).where(*_running(session_id)).values(**new))


def supersede_unless_same(c: Connection, session_id: str, number: int, weights_hash: str, now_s: float) -> None:
    """A version begins to act: what is in shadow goes on only if it was compared with these weights."""
    v = versions.c
    incumbent = and_(v.session_id == shadows.c.session_id, v.number == shadows.c.incumbent_version)
    compared = c.execute(select(v.weights_hash).join(shadows, incumbent).where(*_running(session_id))).scalar()
    if compared is not None and compared != weights_hash:
        supersede(c, session_id, f"version {number} acts by now", now_s)


def states(c: Connection, session_id: str) -> dict[int, ShadowState]:
    """By version."""
    statement = select(shadows.c.version, shadows.c.state).where(shadows.c.session_id == session_id)
    return {row.version: ShadowState(row.state) for row in c.execute(statement)}


def of_versions(c: Connection, session_id: str, numbers: list[int]) -> dict[int, ShadowValue]:
    """Of those of these versions that ever were in shadow."""
    statement = select(shadows).where(
        shadows.c.session_id == session_id, shadows.c.version.between(min(numbers, default=0), max(numbers, default=0))
    )
    return {row.version: _value(row) for row in c.execute(statement)}


def _running(session_id: str) -> tuple[Any, ...]:
    return (shadows.c.session_id == session_id, shadows.c.state == ShadowState.RUNNING.value)


def _evidence(row: Row[Any]) -> Evidence:
    return Evidence(np.frombuffer(row.differences, "<f4").astype(np.float32), row.at_limit, row.acting_at_limit)


def _value(row: Row[Any]) -> ShadowValue:
    seen, rule = _evidence(row), ShadowRule.model_validate_json(row.rule_json)
    figures = {"mean": seen.mean, "quantile": seen.quantile, "largest": seen.largest} if seen.acts else {}
    return ShadowValue(
        state=ShadowState(row.state),
        acts=seen.acts,
        acts_wanted=rule.acts,
        max_difference=rule.max_difference,
        incumbent_version=row.incumbent_version,
        **{f"{name}_difference": value if math.isfinite(value) else None for name, value in figures.items()},
        at_limit=seen.at_limit / seen.acts if seen.acts else None,
        acting_at_limit=seen.acting_at_limit / seen.acts if seen.acts else None,
        reason=row.reason,
    )
