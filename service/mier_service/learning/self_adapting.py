"""Sessions that adapt by themselves: the context follows what is stored; in `auto` fine-tunes start where they must.

Invariants
- Whoever stored transitions has its answer before any of this begins; a session that is behind catches up in one step,
  however many submissions came meanwhile.
- A step reads the store, computes without a lock, and writes only if the session is as it was read; else it is
  dropped, and the next step sees the newer state.
- All state is in the store: after a restart it goes on with the next transition.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace

import structlog

from mier.adaptation import NotFinite
from mier.following import Followed, Following, follow
from mier.ood import OUT_OF_DISTRIBUTION
from mier.warm_start import policy_context_after
from mier_service.access.callers import current_caller, set_caller
from mier_service.access.key_bounds import ROW_BYTES
from mier_service.acting.acting import Acting
from mier_service.data.checkpoints import Checkpoints, HeldCheckpoint
from mier_service.data.storage import Storage
from mier_service.errors import Reason, ServiceError
from mier_service.learning.learning import Learning, context_value, layout_of
from mier_service.learning.publishing import publish_context
from mier_service.offload import BoundedPool
from mier_service.store import operation_rows, promotion_rows, session_rows, shadow_rows, transition_rows, usage_rows
from mier_service.transition_matrix import FloatArray
from mier_service.values import (
    OperationState,
    Promotion,
    SessionMode,
    SessionState,
    SessionValue,
    ShadowState,
    WindowValue,
)

MAX_FOLLOWED_STEPS = 2_000
"""The newest transitions of the task that a context is found from: ten episodes of the bundled checkpoints' length."""
_ROWS = 3
"""A context, a version and its promotion; the context alone where acting stays as it is."""
_SETTLED_AFTER = 2
"""Candidates in a row that did not come to act, or that robots found worse: more rounds would not pay."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Seen:
    """What a step goes by."""

    session: SessionValue
    held: HeldCheckpoint
    state: Following | None
    """Of the rows below."""
    rows: FloatArray
    before: int
    """Transitions of the task that are older than these rows."""


class SelfAdapting:
    """Follows the sessions that ask for it; belongs to the event loop."""

    def __init__(
        self, storage: Storage, checkpoints: Checkpoints, acting: Acting, learning: Learning, pool: BoundedPool
    ) -> None:
        self._storage = storage
        self._checkpoints = checkpoints
        self._acting = acting
        self._learning = learning
        self._pool = pool
        self._behind: dict[str, None] = {}
        self._wake = asyncio.Event()

    def notice(self, session_id: str) -> None:
        """Something was stored for the session, or a fine-tune of it ended."""
        self._behind[session_id] = None
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled: one step for each session that is behind, in turn."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._behind:
                session_id = next(iter(self._behind))
                del self._behind[session_id]
                try:
                    await self.step(session_id)
                except ServiceError as error:
                    if error.reason is not Reason.SESSION_NOT_FOUND:
                        _log.warning("not_followed", session=session_id, detail=error.detail)

    async def step(self, session_id: str) -> None:
        """Brings the session's context up to what is stored; begins a fine-tune where one must."""
        # It counts for the key that opened the session, and waits its turn with that key's.
        set_caller(await self._pool.run(self._owner, session_id))
        moved = await self._pool.run(self._follow, session_id)
        if moved is not None:
            await self._acting.refresh_if_behind(session_id, *moved)
        asked = await self._pool.run(self._round, session_id)
        if asked is not None:
            seed, reason = asked
            try:
                await self._learning.fine_tune(session_id, None, seed, "", reason)
            except ServiceError as error:
                if error.reason is not Reason.OPERATION_IN_PROGRESS:
                    raise

    def _owner(self, session_id: str) -> str:
        with self._storage.store.read() as c:
            return session_rows.owner_of(c, session_id)

    def _follow(self, session_id: str) -> tuple[int, int] | None:
        """The version that acts and the model context, where they moved."""
        seen = self._read(session_id)
        if seen is None:
            return None
        session, layout = seen.session, layout_of(seen.session)
        known = 0 if seen.state is None else seen.state.rows
        *_, terminated, truncated = layout.split(seen.rows[known:])
        transitions = layout.transitions(seen.rows)
        ended = bool(terminated.any() or truncated.any())
        try:
            found = follow(seen.held.checkpoint.agent, seen.state, transitions, episode_ended=ended)
        except NotFinite as error:
            _log.warning("not_followed", session=session_id, detail=str(error))
            return None
        if found is None:
            return None
        own = policy_context_after(seen.held.checkpoint, found.adaptation, transitions)
        return self._write(session, seen, found, [float(x) for x in own])

    def _read(self, session_id: str) -> _Seen | None:
        with self._storage.store.read() as c:
            session = session_rows.get_session(c, session_id)
            count = session.transitions_count - session.task_start
            if session.mode is SessionMode.OFF or session.state is SessionState.PAUSED or not count:
                return None
            written = session_rows.following_of(c, session_id, session.model_context.number)
            window = WindowValue(last_steps=min(count, MAX_FOLLOWED_STEPS))
            rows = transition_rows.read(c, session_id, layout_of(session), window)
        before = count - len(rows)
        state = None if written is None else Following.from_json(json.loads(written))
        if state is not None:
            state = None if state.rows < before else replace(state, rows=state.rows - before)
        held = self._checkpoints.get(session.checkpoint, session.checkpoint_hash)
        return _Seen(session, held, state, rows, before)

    def _write(
        self, session: SessionValue, seen: _Seen, found: Followed, policy_context: list[float]
    ) -> tuple[int, int] | None:
        rows = found.state.rows + (0 if found.changed else seen.before)
        state = replace(found.state, rows=rows)
        with self._storage.store.write() as c:
            now = session_rows.get_session(c, session.id)
            if _key(now) != _key(session):
                return None
            window = WindowValue(last_steps=found.state.rows)
            reference, now_s = seen.held.checkpoint.calibration.ood, self._storage.clock()
            number = session.model_context.number + 1
            context = context_value(number, found.adaptation, window, now_s, reference)
            if found.changed:
                session_rows.begin_task(c, session.id, session.transitions_count - found.state.rows)
                shadow_rows.supersede(c, session.id, "the task changed", now_s)
                if running := operation_rows.unfinished_of_session(c, session.id):
                    operation_rows.request_cancel(c, running, now_s)
            active = publish_context(
                c,
                now,
                context,
                policy_context,
                following_json=json.dumps(state.to_json()),
                anew=seen.held if found.changed else None,
            )
            rows_added = 1 if active.number == now.active_version else _ROWS
            usage_rows.add(c, current_caller(), session.id, rows_added * ROW_BYTES)
        if found.changed:
            _log.info("task_changed", session=session.id, transitions=found.state.rows, version=active.number)
        return active.number, context.number

    def _round(self, session_id: str) -> tuple[int, str] | None:
        """Seed and reason of a fine-tune that must start."""
        with self._storage.store.read() as c:
            session = session_rows.get_session(c, session_id)
            if session.mode is not SessionMode.AUTO or session.state is SessionState.PAUSED or session.pinned:
                return None
            percentile = session.model_context.ood_percentile
            if percentile is None or percentile < OUT_OF_DISTRIBUTION:
                return None
            count, horizon = session.transitions_count - session.task_start, session.environment.horizon_steps
            rounds = operation_rows.of_task(c, session_id, session.task_start)
            if any(not OperationState(row.state).final for row in rounds):
                return None
            if count < (rounds[-1].transitions_used if rounds else 0) + (2 if rounds else 1) * horizon:
                return None
            made = [row.result_version for row in rounds if row.state == OperationState.SUCCEEDED.value]
            shadows = shadow_rows.states(c, session_id)
            if ShadowState.RUNNING in shadows.values():
                return None  # it would be superseded
            worse = promotion_rows.rolled_back_by_itself(c, session_id)
            worse |= {number for number, state in shadows.items() if state is not ShadowState.PASSED}
            verdicts = [
                Promotion.REJECTED if number in worse else session_rows.get_version(c, session_id, number)[0].promotion
                for number in made
            ]
        last = verdicts[-_SETTLED_AFTER:]
        if len(last) == _SETTLED_AFTER and not {Promotion.PROMOTED, Promotion.UNGATED} & set(last):
            return None
        which = "first round" if not rounds else f"round {len(rounds) + 1}"
        return len(rounds), f"{which}: out of distribution (percentile {percentile:.1f}), {count} transitions"


def _key(session: SessionValue) -> tuple[object, ...]:
    """What must not have changed since it was read."""
    return (
        session.mode,
        session.state,
        session.checkpoint_hash,
        session.model_context.number,
        session.task_number,
        session.active_version,
        session.pinned,
    )
