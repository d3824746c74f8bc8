"""Rows of bearer keys <-> values. Every function works inside the caller's transaction.

Keys are added and revoked, never removed: who could do what, and until when, stays on record. Each change takes the
next revision, so that the table in memory can tell whether it is behind by reading one number.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from mier_service.access.keys import ApiKey, Scope
from mier_service.store.schema import api_keys as keys


class KeyNotFound(Exception):
    """No key has this id."""


def revision(c: Connection) -> int:
    """Grows with each change; 0 before the first."""
    return int(c.execute(select(func.max(keys.c.revision))).scalar_one() or 0)


def all_keys(c: Connection) -> list[ApiKey]:
    """Oldest first."""
    return [_value(row) for row in c.execute(select(keys).order_by(keys.c.row))]


def add(c: Connection, key: ApiKey) -> None:
    c.execute(
        insert(keys).values(
            id=key.id,
            secret_hash=key.secret_hash,
            scope=key.scope.value,
            name=key.name,
            session_id=key.session_id,
            create_time_s=key.create_time_s,
            expire_time_s=key.expire_time_s,
            revoke_time_s=key.revoke_time_s,
            revision=revision(c) + 1,
        )
    )


def revoke(c: Connection, key_id: str, now_s: float) -> ApiKey:
    """The key as it is then; one that was revoked before keeps its time. Raises `KeyNotFound`."""
    row = c.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
    if row is None:
        raise KeyNotFound(key_id)
    if row.revoke_time_s is None:
        changed = update(keys).where(keys.c.id == key_id).values(revoke_time_s=now_s, revision=revision(c) + 1)
        row = c.execute(changed.returning(keys)).one()
    return _value(row)


def _value(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        secret_hash=row.secret_hash,
        scope=Scope(row.scope),
        name=row.name,
        session_id=row.session_id,
        create_time_s=row.create_time_s,
        expire_time_s=row.expire_time_s,
        revoke_time_s=row.revoke_time_s,
    )
