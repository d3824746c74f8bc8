"""Use cases of learning: context adaptation at once, fine-tuning in the background, and its operations.

Model context and policy context are kept apart: while a session acts on the checkpoint's weights, a new model
context makes a new version with those weights and the policy context that goes with it (the same one within the
training distribution); once fine-tuned, or while a version is pinned, `adapt` moves the model context only, and acting
changes by a new version only.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from mier.adaptation import Adaptation, InsufficientData
from mier.ood import OodReference
from mier.types import Transitions
from mier.warm_start import policy_context_after
from mier_service.access.callers import current_caller
from mier_service.access.key_bounds import Room
from mier_service.acting.acting import Acting
from mier_service.carry_through import carry_through
from mier_service.data.checkpoints import Checkpoints, HeldCheckpoint
from mier_service.data.storage import Storage
from mier_service.errors import Reason, ServiceError, invalid
from mier_service.learning.changes import Changes
from mier_service.learning.publishing import publish_context
from mier_service.offload import BoundedPool
from mier_service.provenance import ContextOrigin
from mier_service.sessions.life import require_seed
from mier_service.store import idempotency_rows, operation_rows, session_rows, transition_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.transition_matrix import RowLayout
from mier_service.values import (
    AdaptationValue,
    ModelContextValue,
    OperationState,
    OperationValue,
    SessionState,
    SessionValue,
    WindowValue,
)
from mier_service.watching import tracing
from mier_service.watching.calls import current_call

MAX_UPDATES = 1_000_000
MAX_WINDOW_STEPS = 200_000
"""More than that in one adaptation would take all memory for no better context."""


class Learning:
    """Adapts and fine-tunes."""

    def __init__(
        self,
        storage: Storage,
        checkpoints: Checkpoints,
        acting: Acting,
        changes: Changes,
        store_pool: BoundedPool,
        adapt_pool: BoundedPool,
        max_queued_operations: int,
        new_id: Callable[[], str],
    ) -> None:
        self._storage = storage
        self._checkpoints = checkpoints
        self._acting = acting
        self._changes = changes
        self._store_pool = store_pool
        self._adapt_pool = adapt_pool
        self._max_queued_operations = max_queued_operations
        self._new_id = new_id
        self.on_queued: Callable[[], None] = lambda: None
        """Called when an operation waits for a worker."""

    async def adapt(self, session_id: str, window: WindowValue, key: str) -> AdaptationValue:
        """Infers the model context from the window's transitions, starting at the prior."""
        require_window(window)
        retry = Retry.of(key, "Adapt", session_id, window.model_dump_json())

        async def act_with(value: AdaptationValue) -> None:
            # Not only where a version was published: actions tell the newest context's percentile, too.
            await self._acting.refresh_if_behind(session_id, value.active_version.number, value.model_context.number)

        return await carry_through(self._adapt_pool, act_with, self._adapt, session_id, window, retry)

    async def fine_tune(
        self, session_id: str, updates: int | None, seed: int, key: str, reason: str = ""
    ) -> OperationValue:
        """Queues a fine-tune from the active version's weights on all transitions of the present task."""
        require_seed(seed)
        if updates is not None and not 1 <= updates <= MAX_UPDATES:
            raise invalid("updates", f"expected 1 <= updates <= {MAX_UPDATES}, got {updates}")
        retry = Retry.of(key, "FineTune", session_id, str(updates), str(seed))

        async def tell_workers(value: OperationValue) -> None:
            self._changes.expect(value.id)
            self.on_queued()

        return await carry_through(
            self._store_pool, tell_workers, self._fine_tune, session_id, updates, seed, retry, reason
        )

    async def operation(self, operation_id: str) -> OperationValue:
        value = await self._store_pool.run(self._operation, operation_id)
        if value.state is OperationState.SUCCEEDED:
            # Who sees success must act with its version from now on.
            await self._acting.refresh_if_older(value.session_id, value.result_version)
        return value

    async def cancel(self, operation_id: str, key: str) -> OperationValue:
        """Asks it to stop; a final one is returned as it is."""
        retry = Retry.of(key, "CancelOperation", operation_id)

        async def tell_watchers(_: OperationValue) -> None:
            self._changes.tell(operation_id)

        return await carry_through(self._store_pool, tell_watchers, self._cancel, operation_id, retry)

    async def watch(self, operation_id: str) -> AsyncIterator[OperationValue]:
        """The operation now and at each change, the final state last."""
        with self._changes.watch(operation_id) as changed:
            last: OperationValue | None = None
            while True:
                changed.clear()
                value = await self.operation(operation_id)
                if value != last:
                    yield value
                    last = value
                if value.state.final:
                    return
                if self._changes.draining:
                    raise ServiceError(
                        Reason.DRAINING, "the service is stopping; the operation goes on at its next start"
                    )
                await changed.wait()

    def _adapt(self, session_id: str, window: WindowValue, retry: Retry) -> AdaptationValue:
        with self._storage.store.read() as c:
            if earlier := idempotency_rows.earlier_reply(c, retry):
                return AdaptationValue.model_validate_json(earlier)
            session = session_rows.get_session(c, session_id)
            require_learning(session)
            rows = _rows(c, session, window)
        held = self._checkpoints.get(session.checkpoint, session.checkpoint_hash)
        started_s = time.perf_counter()
        transitions = layout_of(session).transitions(rows)
        with tracing.span("learning.infer", {"mier.transitions": len(rows)}):
            found = infer(held, transitions)
            own = policy_context_after(held.checkpoint, found, transitions)
        elapsed_ms = 1000.0 * (time.perf_counter() - started_s)
        with self._storage.once(retry, AdaptationValue, of=session_id) as write:
            if write.earlier is None:
                require_same_checkpoint(write.c, session)
                now_s, reference = self._storage.clock(), held.checkpoint.calibration.ood
                number = session_rows.newest_model_context(write.c, session_id).number + 1
                context = context_value(number, found, window, now_s, reference)
                origin = ContextOrigin.of(session)
                write.reply = self._record(write.c, session_id, context, own.tolist(), origin, elapsed_ms)
                write.added(session_id, rows=3 if write.reply.published else 1)
        return write.result

    def _record(
        self,
        c: Connection,
        session_id: str,
        context: ModelContextValue,
        policy_context: list[float],
        origin: ContextOrigin,
        elapsed_ms: float,
    ) -> AdaptationValue:
        session = session_rows.get_session(c, session_id)
        require_learning(session)  # it may have been paused while this was computed
        before = session.active_version
        active = publish_context(c, session, context, policy_context, origin)
        return AdaptationValue(
            model_context=context,
            active_version=active,
            published=active.number != before,
            elapsed_ms=elapsed_ms,
        )

    def _fine_tune(self, session_id: str, updates: int | None, seed: int, retry: Retry, reason: str) -> OperationValue:
        with self._storage.store.read() as c:
            if earlier := idempotency_rows.earlier_reply(c, retry):
                return OperationValue.model_validate_json(earlier)
            session = session_rows.get_session(c, session_id)
        held = self._checkpoints.get(session.checkpoint, session.checkpoint_hash)
        configuration = held.checkpoint.agent.configuration
        total = configuration.finetune.updates if updates is None else updates
        with self._storage.once(retry, OperationValue) as write:
            if write.earlier is None:
                session = require_same_checkpoint(write.c, session)
                require_learning(session)
                require_data(session.transitions_count - session.task_start, configuration.adapt.min_transitions)
                self._require_room(write.c, session_id)
                write.added(session_id, rows=1)
                write.reply = self._queue(write.c, session, total, seed, reason)
        return write.result

    def _require_room(self, c: Connection, session_id: str) -> None:
        if running := operation_rows.unfinished_of_session(c, session_id):
            raise ServiceError(
                Reason.OPERATION_IN_PROGRESS,
                f"operation {running} is fine-tuning this session: wait for it, or cancel it first",
            )
        self._storage.bounds.require_fine_tune(operation_rows.count_unfinished(c, current_caller()))
        queued = operation_rows.count_unfinished(c)
        if queued >= self._max_queued_operations:
            raise ServiceError(
                Reason.QUEUE_FULL,
                f"{queued} fine-tunes are running or waiting, at most {self._max_queued_operations} may: "
                "try again later",
            )

    def _queue(self, c: Connection, session: SessionValue, updates: int, seed: int, reason: str) -> OperationValue:
        now = session_rows.to_time(self._storage.clock())
        operation = OperationValue(
            id=self._new_id(),
            session_id=session.id,
            state=OperationState.QUEUED,
            cancel_requested=False,
            updates_done=0,
            updates_total=updates,
            seed=seed,
            transitions_used=session.transitions_count - session.task_start,
            start_version=session.active_version,
            result_version=0,
            attempts=0,
            create_time=now,
            update_time=now,
            reason=reason,
        )
        newest = transition_rows.last_batch_row(c, session.id)
        context_number = session.model_context.number
        call = current_call()
        operation_rows.add(
            c,
            operation,
            session.task_start,
            newest,
            context_number,
            current_caller(),
            request_id=None if call is None else call.request_id,
            trace_context=tracing.carried(),
        )
        session_rows.touch(c, {session.id}, now.timestamp())
        return operation

    def _operation(self, operation_id: str) -> OperationValue:
        with self._storage.store.read() as c:
            return operation_rows.get(c, operation_id)

    def _cancel(self, operation_id: str, retry: Retry) -> OperationValue:
        save_hash = None
        with self._storage.once(retry, OperationValue, Room.DECISIONS) as write:
            if write.earlier is None:
                write.reply = operation_rows.request_cancel(write.c, operation_id, self._storage.clock())
                if write.reply.state is OperationState.CANCELLED:
                    save_hash = operation_rows.get_row(write.c, operation_id).save_hash
        if save_hash is not None:  # no worker is at it, who would drop it
            self._storage.drop_unused(set(), {save_hash})
        return write.result


def require_learning(session: SessionValue) -> None:
    if session.state is SessionState.PAUSED:
        raise ServiceError(
            Reason.SESSION_PAUSED,
            f"session {session.id} is paused, which freezes learning: resume it first (acting goes on)",
        )


def require_same_checkpoint(c: Connection, before: SessionValue) -> SessionValue:
    """The session as it is now; refused if it moved to another checkpoint since it was read."""
    session = session_rows.get_session(c, before.id)
    if session.checkpoint_hash != before.checkpoint_hash:
        raise ServiceError(
            Reason.SESSION_CHANGED,
            f"session {session.id} moved to another checkpoint while this was computed; nothing was changed: ask again",
        )
    return session


def require_data(have: int, needed: int) -> None:
    if have < needed:
        raise ServiceError(
            Reason.INSUFFICIENT_DATA,
            f"expected at least {needed} transitions in the window, got {have}: submit more, or widen the window",
        )


def _rows(c: Connection, session: SessionValue, window: WindowValue) -> npt.NDArray[np.float32]:
    """[n, width]; all of them are those of the present task. Counted before they are read, which takes memory."""
    steps = transition_rows.count(c, session.id, window)
    if window.last_steps is None and window.from_episode is None:
        steps = max(0, steps - session.task_start)
        window = WindowValue(last_steps=max(1, steps))
    require_size(steps)
    return transition_rows.read(c, session.id, layout_of(session), window)[:steps]


def require_size(steps: int) -> None:
    if steps > MAX_WINDOW_STEPS:
        raise invalid(
            "window",
            f"the window holds {steps} transitions, at most {MAX_WINDOW_STEPS} may be used: set window.last_steps",
        )


def require_window(window: WindowValue) -> None:
    given = [name for name in WindowValue.model_fields if getattr(window, name) is not None]
    if len(given) > 1:
        raise invalid("window", f"expected at most one of all, last_steps, from_episode; got {', '.join(given)}")
    if window.all is False:
        raise invalid("window.all", "expected true, or nothing; got false")


def layout_of(session: SessionValue) -> RowLayout:
    return RowLayout(session.environment.observation_dim, session.environment.action_dim)


def infer(held: HeldCheckpoint, transitions: Transitions) -> Adaptation:
    agent = held.checkpoint.agent
    require_data(transitions.size, agent.configuration.adapt.min_transitions)
    try:
        found = agent.adapt(transitions)
    except InsufficientData as error:
        raise ServiceError(Reason.INSUFFICIENT_DATA, str(error)) from error
    if not np.isfinite(found.context).all():
        raise ServiceError(
            Reason.ADAPTATION_FAILED,
            "the transitions lead to no finite context: check their units and order against the session's "
            "environment, or choose another window; nothing was changed",
        )
    return found


def context_value(
    number: int, found: Adaptation, window: WindowValue, now_s: float, reference: OodReference | None
) -> ModelContextValue:
    """What was found, as the model context of that number."""
    return ModelContextValue(
        number=number,
        values=[float(x) for x in found.context],
        heldout_nll_before=_finite(found.nll_before),
        heldout_nll_after=_finite(found.nll_after),
        ood_score=_finite(found.ood_score),
        transitions_used=found.transitions_used,
        window=window,
        create_time=session_rows.to_time(now_s),
        ood_percentile=reference.percentile(found) if reference else None,
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
