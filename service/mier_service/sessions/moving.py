"""Use case: taking a session to another checkpoint of the same environment, with all that it lived through.

Transitions and lineage stay. The context is adapted anew, since one checkpoint's latent vector means nothing to
another's model, and a version is published: the new checkpoint's weights under that context, its parent the version
that acted. Fine-tuned weights stay with their versions. What a rollback across checkpoints does: `promotion_rows`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from mier.warm_start import policy_context_after
from mier_service.access.callers import current_caller
from mier_service.acting.acting import Acting, FloatArray
from mier_service.carry_through import carry_through
from mier_service.data.checkpoints import Checkpoints, HeldCheckpoint
from mier_service.data.storage import Storage
from mier_service.environments import require_same
from mier_service.errors import Reason, ServiceError
from mier_service.learning.learning import (
    MAX_WINDOW_STEPS,
    context_value,
    infer,
    layout_of,
    require_learning,
    require_same_checkpoint,
)
from mier_service.offload import BoundedPool
from mier_service.provenance import ContextOrigin, one_build
from mier_service.sessions.lineage import require_reason, require_unpinned
from mier_service.store import idempotency_rows, operation_rows, promotion_rows, session_rows, transition_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.store.promotion_rows import Why
from mier_service.values import (
    ModelContextValue,
    Promotion,
    PromotionKind,
    SessionValue,
    VersionOrigin,
    VersionValue,
    WindowValue,
)


@dataclass(frozen=True)
class _Arrival:
    """What the session begins with on the new checkpoint; numbers are given when it is written."""

    context: ModelContextValue
    policy_context: list[float]
    inferred_from: ContextOrigin
    origin: VersionOrigin


class Moving:
    """Changes the checkpoint under a session."""

    def __init__(self, storage: Storage, checkpoints: Checkpoints, acting: Acting, adapt_pool: BoundedPool) -> None:
        self._storage = storage
        self._checkpoints = checkpoints
        self._acting = acting
        self._adapt_pool = adapt_pool

    async def move(self, session_id: str, checkpoint: str, reason: str, key: str) -> SessionValue:
        """Onto the checkpoint of that name; a session that is on it already is returned as it is."""
        require_reason(reason)
        retry = Retry.of(key, "MoveSession", session_id, checkpoint, reason)
        why = Why(PromotionKind.MOVE, current_caller(), reason, self._storage.clock())

        async def act_with(session: SessionValue) -> None:
            await self._acting.refresh_unless(session_id, session.active_version)

        return await carry_through(self._adapt_pool, act_with, self._move, session_id, checkpoint, why, retry)

    def _move(self, session_id: str, checkpoint: str, why: Why, retry: Retry) -> SessionValue:
        # The newest so many: more would take all memory for no better context.
        window = WindowValue(last_steps=MAX_WINDOW_STEPS)
        with self._storage.store.read() as c:
            if earlier := idempotency_rows.earlier_reply(c, retry):
                return SessionValue.model_validate_json(earlier)
            session = session_rows.get_session(c, session_id)
            _require_movable(c, session)
            held = self._checkpoints.get(checkpoint)
            there = session.checkpoint_hash == held.checkpoint.hash
            known = session_rows.onnx_of(c, held.checkpoint.hash, held.weights_hash)
            require_same(session.environment, held.environment, checkpoint)
            rows = transition_rows.read(c, session_id, layout_of(session), window)
            rows = rows[max(0, len(rows) - (session.transitions_count - session.task_start)) :]  # of the present task
        if known is None:
            self._checkpoints.export(held)  # takes seconds, so not under the write lock
        arrival = None if there else self._arrive(session, held, rows, window, why.time_s)
        with self._storage.once(retry, SessionValue) as write:
            if write.earlier is None:
                now = require_same_checkpoint(write.c, session)
                _require_movable(write.c, now)
                if arrival is not None:
                    self._record(write.c, now, held, arrival, why)
                    write.added(session_id, rows=3)
                write.reply = session_rows.get_session(write.c, session_id)
        return write.result

    def _arrive(
        self, session: SessionValue, held: HeldCheckpoint, rows: FloatArray, window: WindowValue, now_s: float
    ) -> _Arrival:
        there = {"checkpoint": held.name, "checkpoint_hash": held.checkpoint.hash}
        inferred_from = ContextOrigin.of(session).model_copy(update=there)
        if len(rows) < held.checkpoint.agent.configuration.adapt.min_transitions:
            prior = [float(x) for x in held.prior_context]
            context = ModelContextValue(number=0, values=prior, create_time=session_rows.to_time(now_s))
            return _Arrival(context, prior, inferred_from, VersionOrigin.CHECKPOINT)
        transitions = layout_of(session).transitions(rows)
        found = infer(held, transitions)
        own = policy_context_after(held.checkpoint, found, transitions)
        context = context_value(0, found, window, now_s, held.checkpoint.calibration.ood)
        return _Arrival(context, own.tolist(), inferred_from, VersionOrigin.ADAPT)

    def _record(self, c: Connection, session: SessionValue, held: HeldCheckpoint, arrival: _Arrival, why: Why) -> None:
        context = arrival.context.model_copy(update={"number": session.model_context.number + 1})
        session_rows.add_model_context(c, session.id, context, arrival.inferred_from)
        version = VersionValue(
            number=session_rows.newest_version_number(c, session.id) + 1,
            parent=session.active_version,
            weights_hash=held.weights_hash,
            policy_context=arrival.policy_context,
            model_context_number=context.number,
            origin=arrival.origin,
            promotion=Promotion.UNGATED,
            checkpoint_hash=held.checkpoint.hash,
            transitions_used=context.transitions_used,
            create_time=context.create_time,
            checkpoint=held.name,
            first_transition=arrival.inferred_from.first_transition(context),
            made_with_json=one_build(arrival.inferred_from.made_with),
        )
        onnx_hash = session_rows.onnx_of(c, held.checkpoint.hash, held.weights_hash)
        if onnx_hash is None:
            onnx_hash = self._storage.onnx.put(self._checkpoints.export(held))
        session_rows.add_version(c, session.id, version, onnx_hash)
        promotion_rows.swap(c, session, version, why)


def _require_movable(c: Connection, session: SessionValue) -> None:
    require_learning(session)
    require_unpinned(session)
    if running := operation_rows.unfinished_of_session(c, session.id):
        raise ServiceError(
            Reason.OPERATION_IN_PROGRESS,
            f"operation {running} is fine-tuning this session on its present checkpoint: wait for it, or cancel it",
        )
