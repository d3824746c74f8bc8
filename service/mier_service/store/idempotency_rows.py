"""Idempotency keys: a write's reply, kept under the caller's key in the same transaction as its effect."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from mier_service.access.callers import ANONYMOUS
from mier_service.access.key_bounds import ROW_BYTES
from mier_service.errors import Reason, ServiceError, Violation
from mier_service.store import usage_rows
from mier_service.store.schema import idempotency_keys as keys

MAX_KEY_CHARACTERS = 255


@dataclass(frozen=True)
class Retry:
    """Who is asking: the caller's key (empty: none), the call, and a digest of everything that it was asked."""

    key: str
    call: str
    fingerprint: str

    @staticmethod
    def of(key: str, call: str, *parts: bytes | str) -> Retry:
        digest = hashlib.sha256()
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little") + data)
        return Retry(key, call, digest.hexdigest())


def earlier_reply(c: Connection, retry: Retry) -> str | None:
    """JSON of the reply to the same request, if there was one; refuses a key that another request used."""
    if not retry.key:
        return None
    if len(retry.key) > MAX_KEY_CHARACTERS:
        text = f"expected at most {MAX_KEY_CHARACTERS} characters, got {len(retry.key)}"
        raise ServiceError(Reason.INVALID_ARGUMENT, text, (Violation("idempotency_key", text),))
    row = c.execute(select(keys).where(keys.c.key == retry.key)).one_or_none()
    if row is None:
        return None
    if (row.call, row.fingerprint) != (retry.call, retry.fingerprint):
        same_call = f"another {row.call} request" if row.call == retry.call else f"a {row.call} request"
        raise ServiceError(
            Reason.IDEMPOTENCY_KEY_REUSED,
            f"the idempotency key {retry.key!r} was used for {same_call}: "
            "repeat that request unchanged, or take a new key",
        )
    return str(row.reply_json)


def remember(c: Connection, retry: Retry, reply_json: str, now_s: float, owner: str = ANONYMOUS) -> None:
    """Keeps the reply, which counts for that key; to be called in the transaction of the effect."""
    if retry.key:
        stored_bytes = len(reply_json.encode()) + ROW_BYTES
        c.execute(
            insert(keys).values(
                key=retry.key,
                call=retry.call,
                fingerprint=retry.fingerprint,
                reply_json=reply_json,
                create_time_s=now_s,
                owner=owner,
                stored_bytes=stored_bytes,
            )
        )
        usage_rows.add(c, owner, usage_rows.NO_SESSION, stored_bytes)


def forget_before(c: Connection, time_s: float, limit: int | None = None) -> None:
    """Drops keys older than that, the oldest first and at most so many, which bounds their number."""
    old = select(keys.c.key).where(keys.c.create_time_s < time_s).order_by(keys.c.create_time_s).limit(limit)
    gone = delete(keys).where(keys.c.key.in_(old)).returning(keys.c.owner, keys.c.stored_bytes)
    freed: Counter[str] = Counter()
    for owner, stored_bytes in c.execute(gone):
        freed[owner] += stored_bytes
    for owner, stored_bytes in freed.items():
        if owner:
            usage_rows.add(c, owner, usage_rows.NO_SESSION, -stored_bytes)
