"""Use cases of lineage by hand: promote, roll back, pin, unpin, and the record of who did it and why.

Invariants
- A version is made to act only if its policy loads, hash verified; checked before anything is changed.
- The swap, its record and the reply kept under the idempotency key are one transaction.
- While a version is pinned only another pin, or an unpin, changes what acts.
- Asking for what is so already changes nothing and records nothing.
"""

from __future__ import annotations

from sqlalchemy import Connection

from mier_service.access.callers import current_caller
from mier_service.access.key_bounds import Room
from mier_service.acting.acting import Acting
from mier_service.carry_through import carry_through
from mier_service.data.storage import Storage
from mier_service.errors import Reason, ServiceError, invalid
from mier_service.offload import BoundedPool
from mier_service.pages import decode_token, encode_token, require_page_size
from mier_service.store import idempotency_rows, promotion_rows, session_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.store.promotion_rows import Why
from mier_service.values import MAX_INDEX, PromotionKind, PromotionPage, SessionValue, VersionValue

MAX_REASON_CHARACTERS = 500


class Lineage:
    """Which version acts, by a person's decision."""

    def __init__(self, storage: Storage, acting: Acting, pool: BoundedPool) -> None:
        self._storage = storage
        self._acting = acting
        self._pool = pool

    async def promote(self, session_id: str, version: int, reason: str, key: str) -> SessionValue:
        """Makes a version of the session act."""
        require_version(version)
        retry = Retry.of(key, "PromoteVersion", session_id, str(version), reason)
        return await self._change(PromotionKind.PROMOTE, session_id, version, reason, retry)

    async def roll_back(self, session_id: str, reason: str, key: str) -> SessionValue:
        """Makes act what acted before the active version did; again: what acted before that."""
        retry = Retry.of(key, "RollbackVersion", session_id, reason)
        return await self._change(PromotionKind.ROLLBACK, session_id, None, reason, retry)

    async def pin(self, session_id: str, version: int | None, reason: str, key: str) -> SessionValue:
        """Makes a version act (None: the active one) and keeps it until it is unpinned."""
        if version is not None:
            require_version(version)
        retry = Retry.of(key, "PinVersion", session_id, str(version), reason)
        return await self._change(PromotionKind.PIN, session_id, version, reason, retry)

    async def unpin(self, session_id: str, reason: str, key: str) -> SessionValue:
        """Lets what is published next act; until then the active version stays."""
        retry = Retry.of(key, "UnpinVersion", session_id, reason)
        return await self._change(PromotionKind.UNPIN, session_id, None, reason, retry)

    async def promotions(self, session_id: str, page_size: int, page_token: str) -> PromotionPage:
        """The record, oldest first."""
        size, after = require_page_size(page_size), decode_token(page_token)
        return await self._pool.run(self._promotions, session_id, size, after)

    async def _change(
        self, kind: PromotionKind, session_id: str, version: int | None, reason: str, retry: Retry
    ) -> SessionValue:
        require_reason(reason)
        why = Why(kind, current_caller(), reason, self._storage.clock())

        async def act_with(session: SessionValue) -> None:
            await self._acting.refresh_unless(session_id, session.active_version)

        return await carry_through(self._pool, act_with, self._decide, session_id, version, why, retry)

    def _decide(self, session_id: str, version: int | None, why: Why, retry: Retry) -> SessionValue:
        with self._storage.store.read() as c:
            if earlier := idempotency_rows.earlier_reply(c, retry):
                return SessionValue.model_validate_json(earlier)
            session = session_rows.get_session(c, session_id)
            looked_at = _target(c, session, version, why.kind)
            _, onnx_hash = session_rows.get_version(c, session_id, looked_at)
        # A version never changes and its files stay as long as it does, so this need not hold the write lock.
        if looked_at != session.active_version:
            self._acting.require_usable(session_id, looked_at, onnx_hash)
        with self._storage.once(retry, SessionValue, Room.DECISIONS, of=session_id) as write:
            if write.earlier is None:
                session = session_rows.get_session(write.c, session_id)
                target = _target(write.c, session, version, why.kind)
                to, onnx_hash = session_rows.get_version(write.c, session_id, target)
                if target not in (looked_at, session.active_version):  # something else began to act in between
                    self._acting.require_usable(session_id, target, onnx_hash)
                if _apply(write.c, session, to, why):
                    write.added(session_id, rows=1)
                write.reply = session_rows.get_session(write.c, session_id)
        return write.result

    def _promotions(self, session_id: str, page_size: int, after: int) -> PromotionPage:
        with self._storage.store.read() as c:
            page, more = promotion_rows.list_promotions(c, session_id, after, page_size)
        return PromotionPage(promotions=page, next_page_token=encode_token(more))


def require_reason(reason: str) -> None:
    if not 1 <= len(reason) <= MAX_REASON_CHARACTERS:
        raise invalid("reason", f"expected a reason of 1 to {MAX_REASON_CHARACTERS} characters, got {len(reason)}")


def require_version(version: int) -> None:
    if not 1 <= version < MAX_INDEX:
        raise invalid("version", f"expected 1 <= version < 2^31, got {version}")


def require_unpinned(session: SessionValue) -> None:
    if session.pinned:
        raise ServiceError(
            Reason.VERSION_PINNED,
            f"version {session.active_version} of session {session.id} is pinned: unpin it first, or pin another one",
        )


def _target(c: Connection, session: SessionValue, version: int | None, kind: PromotionKind) -> int:
    """The version that is to act afterwards."""
    if kind in (PromotionKind.PROMOTE, PromotionKind.ROLLBACK):
        require_unpinned(session)
    if kind is PromotionKind.ROLLBACK:
        version = promotion_rows.acted_before(c, session.id)
        if version is None:
            raise ServiceError(
                Reason.NO_EARLIER_VERSION,
                f"nothing acted before version {session.active_version} in session {session.id}: "
                "promote the version that you want by its number",
            )
    return session.active_version if version is None else version


def _apply(c: Connection, session: SessionValue, to: VersionValue, why: Why) -> bool:
    """Whether anything changed, which is recorded."""
    pinned = session.pinned if why.kind is PromotionKind.PROMOTE else why.kind is PromotionKind.PIN
    if pinned != session.pinned:
        promotion_rows.set_pinned(c, session.id, pinned)
    if to.number != session.active_version:
        promotion_rows.swap(c, session, to, why)
    elif pinned != session.pinned:
        promotion_rows.record(c, session.id, to.number, to.number, why)
    return to.number != session.active_version or pinned != session.pinned
