"""Use cases of a session's life: create, read, list, delete, pause and resume, its versions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mier_service.access.callers import current_caller
from mier_service.access.key_bounds import Room
from mier_service.acting.acting import Acting
from mier_service.acting.rules import require_legal
from mier_service.carry_through import carry_through
from mier_service.data import purging
from mier_service.data.checkpoints import Checkpoints
from mier_service.data.storage import Storage
from mier_service.environments import ExpectedEnvironment, require_fit
from mier_service.errors import ServiceError, invalid
from mier_service.learning.changes import Changes
from mier_service.offload import BoundedPool
from mier_service.pages import decode_token, encode_token, require_page_size
from mier_service.store import idempotency_rows, promotion_rows, session_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.store.promotion_rows import Why
from mier_service.values import (
    MAX_SEED,
    ActingRules,
    ModelContextValue,
    Promotion,
    PromotionKind,
    SessionMode,
    SessionPage,
    SessionState,
    SessionValue,
    Value,
    VersionOrigin,
    VersionPage,
    VersionValue,
)


class Deleted(Value):
    """The reply to a delete: nothing."""


def require_seed(seed: int) -> None:
    if not 0 <= seed < MAX_SEED:
        raise invalid("seed", f"expected 0 <= seed < 2^53, got {seed}")


class Sessions:
    """A session is a row, its first model context (the checkpoint's prior) and its version 1."""

    def __init__(
        self,
        storage: Storage,
        checkpoints: Checkpoints,
        acting: Acting,
        changes: Changes,
        pool: BoundedPool,
        new_id: Callable[[], str],
    ) -> None:
        self._storage = storage
        self._checkpoints = checkpoints
        self._acting = acting
        self._changes = changes
        self._pool = pool
        self._new_id = new_id

    async def create(
        self, checkpoint: str, expected: ExpectedEnvironment | None, seed: int, rules: ActingRules, key: str
    ) -> SessionValue:
        """A session on the checkpoint's own weights and prior context."""
        require_seed(seed)
        expected_json = expected.model_dump_json(exclude_none=True) if expected else ""
        declared = rules.model_dump_json(exclude_none=True)
        # What declares nothing is the same request as it was before anything could be declared.
        asked = [checkpoint, expected_json, str(seed), *([declared] if rules != ActingRules() else [])]
        retry = Retry.of(key, "CreateSession", *asked)
        session = await self._pool.run(self._create, checkpoint, expected, seed, rules, retry)
        if session.fallback is not None:
            with suppress(ServiceError):  # it is created all the same
                await self._acting.load(session.id)  # so that its first act is in time
        return session

    async def get(self, session_id: str) -> SessionValue:
        return await self._pool.run(self._get, session_id)

    async def list(self, page_size: int, page_token: str) -> SessionPage:
        return await self._pool.run(self._list, require_page_size(page_size), decode_token(page_token))

    async def delete(self, session_id: str, key: str) -> None:
        """With its transitions, versions and operations; what is being learned for it stops."""

        async def forget(operation_id: str | None) -> None:
            self._acting.forget(session_id)
            if operation_id:
                self._changes.tell(operation_id)

        retry = Retry.of(key, "DeleteSession", session_id)
        await carry_through(self._pool, forget, self._delete, session_id, retry)

    async def pause(self, session_id: str, key: str) -> SessionValue:
        """Freezes learning; acting and recording go on."""
        retry = Retry.of(key, "PauseSession", session_id)
        return await self._pool.run(self._set_state, session_id, SessionState.PAUSED, retry)

    async def resume(self, session_id: str, key: str) -> SessionValue:
        """Lets learning go on."""
        retry = Retry.of(key, "ResumeSession", session_id)
        return await self._pool.run(self._set_state, session_id, SessionState.ACTIVE, retry)

    async def set_mode(self, session_id: str, mode: SessionMode, key: str) -> SessionValue:
        """Whether it adapts by itself from the next transitions on."""
        retry = Retry.of(key, "SetSessionMode", session_id, mode.value)
        return await self._pool.run(self._set_mode, session_id, mode, retry)

    async def versions(self, session_id: str, page_size: int, page_token: str) -> VersionPage:
        """Lineage, oldest first."""
        size, after = require_page_size(page_size), decode_token(page_token)
        return await self._pool.run(self._versions, session_id, size, after)

    def _create(
        self, checkpoint: str, expected: ExpectedEnvironment | None, seed: int, rules: ActingRules, retry: Retry
    ) -> SessionValue:
        who = current_caller()
        with self._storage.store.read() as c:
            if earlier := idempotency_rows.earlier_reply(c, retry):
                return SessionValue.model_validate_json(earlier)
            held = self._checkpoints.get(checkpoint)
            known = session_rows.onnx_of(c, held.checkpoint.hash, held.weights_hash)
        if expected is not None:
            require_fit(expected, held.environment, checkpoint)
        require_legal(rules, held.environment)
        if known is None:
            self._checkpoints.export(held)  # takes seconds, so not under the write lock
        now = session_rows.to_time(self._storage.clock())
        context = [float(x) for x in held.prior_context]
        session = SessionValue(
            id=self._new_id(),
            checkpoint=checkpoint,
            checkpoint_hash=held.checkpoint.hash,
            environment=held.environment,
            seed=seed,
            state=SessionState.ACTIVE,
            active_version=1,
            model_context=ModelContextValue(number=0, values=context, create_time=now),
            transitions_count=0,
            create_time=now,
            fallback=rules.fallback,
            action_limits=rules.action_limits,
            max_observation_age_ms=rules.max_observation_age_ms,
            shadow=rules.shadow,
        )
        version = VersionValue(
            number=1,
            parent=0,
            weights_hash=held.weights_hash,
            policy_context=context,
            model_context_number=0,
            origin=VersionOrigin.CHECKPOINT,
            promotion=Promotion.UNGATED,
            checkpoint_hash=held.checkpoint.hash,
            transitions_used=0,
            create_time=now,
            checkpoint=checkpoint,
        )
        with self._storage.once(retry, SessionValue) as write:
            if write.earlier is None:
                self._storage.bounds.require_session(session_rows.count_sessions(write.c, who))
                session_rows.add_session(write.c, session, who)
                onnx_hash = session_rows.onnx_of(write.c, held.checkpoint.hash, held.weights_hash)
                if onnx_hash is None:
                    onnx_hash = self._storage.onnx.put(self._checkpoints.export(held))
                session_rows.add_version(write.c, session.id, version, onnx_hash)
                why = Why(PromotionKind.PUBLISH, who, "the session was created", now.timestamp())
                promotion_rows.record(write.c, session.id, 0, version.number, why)
                write.added(session.id, rows=3)
                write.reply = session
        return write.result

    def _get(self, session_id: str) -> SessionValue:
        with self._storage.store.read() as c:
            return session_rows.get_session(c, session_id)

    def _list(self, page_size: int, after_row: int) -> SessionPage:
        with self._storage.store.read() as c:
            page, more = session_rows.list_sessions(c, after_row, page_size)
        return SessionPage(sessions=page, next_page_token=encode_token(more))

    def _delete(self, session_id: str, retry: Retry) -> str | None:
        remains = None
        with self._storage.once(retry, Deleted, Room.FREEING) as write:
            if write.earlier is None:
                remains = purging.remove_rows(write.c, session_id)
                write.reply = Deleted()
        if remains is None:
            return None
        purging.remove_files(self._storage, remains)
        return remains.operation_id

    def _set_state(self, session_id: str, state: SessionState, retry: Retry) -> SessionValue:
        with self._storage.once(retry, SessionValue, Room.DECISIONS, of=session_id) as write:
            if write.earlier is None:
                session_rows.set_state(write.c, session_id, state)
                session_rows.touch(write.c, {session_id}, self._storage.clock())
                write.reply = session_rows.get_session(write.c, session_id)
        return write.result

    def _set_mode(self, session_id: str, mode: SessionMode, retry: Retry) -> SessionValue:
        with self._storage.once(retry, SessionValue) as write:
            if write.earlier is None:
                session_rows.set_mode(write.c, session_id, mode)
                session_rows.touch(write.c, {session_id}, self._storage.clock())
                write.reply = session_rows.get_session(write.c, session_id)
        return write.result

    def _versions(self, session_id: str, page_size: int, after: int) -> VersionPage:
        with self._storage.store.read() as c:
            page, more = session_rows.list_versions(c, session_id, after, page_size)
        return VersionPage(versions=page, next_page_token=encode_token(more))
