"""Acting as callers get it: within their budget, and within what their session declared.

A call that states no budget, of a session that declared nothing, is answered by the active version and nothing else is
looked at. Otherwise, in this order:

    refused     what no policy could answer; an observation that is too old; a limited rate whose last step is unknown
    read        what should act, if it is not in memory, for as long as the budget lasts
    chosen      by the active version, if there is time left; else by the session's fallback, with the reason
    limited     to the session's bounds and rates, whoever chose it
    remembered  as the step's action

Invariants
- An answer that is late, or would be, is the fallback's and says so, or it is refused.
- A retry of a step is limited from the same step before it (`last_actions`), so that it repeats its action, unless
  another version acts by then or a fallback answered one of the two.
- A fallback that cannot answer gives way to the next kind in the order of `FallbackKind`; holding zero always can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mier_proto import convert
from mier_service.acting.acting import (
    MAY_PASS,
    ActCall,
    Acting,
    Action,
    FloatArray,
    answer,
    chosen,
    inputs,
    require_sound,
)
from mier_service.acting.budget import Budget
from mier_service.acting.ready_sessions import Active
from mier_service.acting.standby import Standby
from mier_service.errors import Reason, ServiceError, Violation, invalid
from mier_service.offload import BoundedPool
from mier_service.values import FallbackKind, FallbackReason, FallbackValue

MAX_BATCH = 1024
_MAX_ROWS_ON_LOOP = 32
"""More rows than this take longer than an act may hold the event loop."""
_MAX_LOADS_AHEAD = 64
_ORDER = tuple(FallbackKind)
_CHOOSE = (FallbackKind.INCUMBENT, FallbackKind.BASE_POLICY)
"""Fallbacks by which a policy chooses."""


class _NotInTime(Exception):
    """What should act is not there, and the budget is over; or it cannot be read."""

    def __init__(self, why: FallbackReason, error: ServiceError | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.error = error


@dataclass(eq=False)
class _Row:
    """One question of a batch, ready to be answered by a policy."""

    index: int
    call: ActCall
    active: Active
    standby: Standby | None
    previous: FloatArray | None
    observation: FloatArray
    noise: FloatArray


class TimelyActing:
    """Belongs to the event loop."""

    def __init__(
        self,
        acting: Acting,
        pool: BoundedPool,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        on_fallback: Callable[[FallbackValue], None] = lambda fallback: None,
        max_batch: int = MAX_BATCH,
    ) -> None:
        """`clock` is that of observations, in seconds since 1970; `monotonic` that of budgets."""
        self._acting = acting
        self._pool = pool
        self._clock = clock
        self._monotonic = monotonic
        self._on_fallback = on_fallback
        self._max_batch = max_batch

    async def act(self, call: ActCall) -> Action:
        """One action."""
        active = self._acting.ready(call.session_id)
        if active is not None and active.rules is None:
            if call.budget is None:
                return answer(call, active)
            # As below, at the least cost: most gRPC calls have a deadline.
            if self._monotonic() <= call.budget.answer_by_s:
                action = answer(call, active)
                if self._monotonic() <= call.budget.deadline_s:
                    return action
        standby, asked_s = self._acting.standbys.get(call.session_id), self._clock()
        try:
            if active is None:
                _check(call, standby, asked_s)  # what will be refused need not wait
                active = await self._load(call.session_id, call.budget)
                standby = self._acting.standby_of(call.session_id, active)
            previous = _check(call, standby, asked_s)
            self._require_time(call.budget)
            action = answer(call, active)
            self._require_time_left(call.budget)
        except _NotInTime as late:
            return self._fall_back(call, standby, asked_s, late)
        return _within(call, standby, previous, action)

    async def act_batch(self, calls: list[ActCall | ServiceError]) -> list[Action | ServiceError]:
        """One outcome for each call, in order; sessions on the same weights act in one run. A call that could not
        be read is passed as its error, and handed back. The smallest budget is that of all."""
        if not 1 <= len(calls) <= self._max_batch:
            raise invalid("requests", f"expected 1 to {self._max_batch} requests, got {len(calls)}")
        budgets = [call.budget for call in calls if isinstance(call, ActCall) and call.budget is not None]
        budget, asked_s = min(budgets) if budgets else None, self._clock()
        if budget is not None:
            self._load_ahead(calls)
        outcomes: list[Action | ServiceError | None] = [None] * len(calls)
        late: list[tuple[int, _NotInTime]] = []
        groups: dict[int, list[_Row]] = {}
        for index, call in enumerate(calls):
            try:
                if isinstance(call, ServiceError):
                    raise call
                row = await self._row(index, call, budget, asked_s)
                groups.setdefault(id(row.active.policy), []).append(row)
            except _NotInTime as error:
                late.append((index, error))
            except ServiceError as error:
                outcomes[index] = error
        for rows in groups.values():
            try:
                actions = await self._run(rows, budget)
            except _NotInTime as error:
                late += [(row.index, error) for row in rows]
                continue
            for row, action in zip(rows, actions, strict=True):
                try:
                    found = chosen(action, row.active)
                    if row.active.shadow is not None:
                        row.active.shadow.see(row.observation, row.noise, found.action)
                    outcomes[row.index] = _within(row.call, row.standby, row.previous, found)
                except ServiceError as error:
                    outcomes[row.index] = error
        for place, (index, why) in enumerate(late):
            call = calls[index]
            assert isinstance(call, ActCall), "what could not be read is not late"
            try:
                standby = self._acting.standbys.get(call.session_id)
                outcomes[index] = self._fall_back(call, standby, asked_s, why, place < _MAX_ROWS_ON_LOOP)
            except ServiceError as refusal:
                outcomes[index] = refusal
        return [outcome for outcome in outcomes if outcome is not None]

    async def _row(self, index: int, call: ActCall, budget: Budget | None, asked_s: float) -> _Row:
        active = self._acting.ready(call.session_id)
        if active is None:
            _check(call, self._acting.standbys.get(call.session_id), asked_s)
            active = await self._load(call.session_id, budget)
        standby = self._acting.standby_of(call.session_id, active)
        return _Row(index, call, active, standby, _check(call, standby, asked_s), *inputs(call, active))

    async def _run(self, rows: list[_Row], budget: Budget | None) -> FloatArray:
        """Actions [rows, action_dim] of one policy."""
        self._require_time(budget)
        policy = rows[0].active.policy
        observation = np.concatenate([row.observation for row in rows])
        context = np.concatenate([row.active.context for row in rows])
        noise = np.concatenate([row.noise for row in rows])
        if len(rows) <= _MAX_ROWS_ON_LOOP:
            actions = policy.act(observation, context, noise)
        elif budget is None:
            actions = await self._pool.run(policy.act, observation, context, noise)
        else:
            try:
                async with asyncio.timeout(self._left_s(budget)):
                    actions = await self._pool.run(policy.act, observation, context, noise)
            except TimeoutError:
                raise _NotInTime(FallbackReason.BUSY) from None
            except ServiceError as error:
                raise _NotInTime(FallbackReason.UNAVAILABLE, error) from error
        self._require_time_left(budget)
        return actions

    async def _load(self, session_id: str, budget: Budget | None) -> Active:
        if budget is None:
            return await self._acting.load(session_id)
        try:
            async with asyncio.timeout(self._left_s(budget)):
                return await self._acting.load(session_id)
        except TimeoutError:
            raise _NotInTime(FallbackReason.LOADING) from None
        except ServiceError as error:
            if error.reason in MAY_PASS:
                raise _NotInTime(FallbackReason.UNAVAILABLE, error) from error
            raise

    def _load_ahead(self, calls: list[ActCall | ServiceError]) -> None:
        """Begins the loads that a batch needs, so that they do not wait for one another."""
        sessions = dict.fromkeys(call.session_id for call in calls if isinstance(call, ActCall))
        missing = [session_id for session_id in sessions if self._acting.ready(session_id) is None]
        for session_id in missing[:_MAX_LOADS_AHEAD]:
            self._acting.begin_load(session_id)

    def _left_s(self, budget: Budget) -> float:
        """What may be waited for; whole milliseconds, which are what the event loop's timers count."""
        return max(0, int(1000.0 * (budget.answer_by_s - self._monotonic()))) / 1000.0

    def _require_time(self, budget: Budget | None) -> None:
        """For a policy to choose."""
        if budget is not None and self._monotonic() > budget.answer_by_s:
            raise _NotInTime(FallbackReason.BUSY)

    def _require_time_left(self, budget: Budget | None) -> None:
        """After it has chosen."""
        if budget is not None and self._monotonic() > budget.deadline_s:
            raise _NotInTime(FallbackReason.BUSY)

    def _fall_back(
        self, call: ActCall, standby: Standby | None, asked_s: float, late: _NotInTime, may_choose: bool = True
    ) -> Action:
        """The session's fallback; the refusal, if it declares none."""
        previous = _check(call, standby, asked_s)
        if standby is None or standby.rules.fallback is None:
            raise late.error or ServiceError(
                Reason.DEADLINE_EXCEEDED,
                "expected a budget that lasts until there is an action, got one that ended before "
                f"({late.why.value}): allow more time, or declare a fallback when the session is created",
            )
        for kind in _ORDER[_ORDER.index(standby.rules.fallback) :]:
            if not may_choose and kind in _CHOOSE:
                continue
            action = self._stand_in(kind, call, standby)
            if action is not None:
                fallback = FallbackValue(kind=kind, reason=late.why)
                self._on_fallback(fallback)
                self._acting.used(call.session_id)
                return _within(call, standby, previous, replace(action, fallback=fallback))
        raise AssertionError("zero can always be held")

    def _stand_in(self, kind: FallbackKind, call: ActCall, standby: Standby) -> Action | None:
        if kind in _CHOOSE:
            active = standby.base
            if kind is FallbackKind.INCUMBENT:
                active = self._acting.ready(call.session_id) or standby.incumbent
            return None if active is None else answer(call, active)
        if kind is FallbackKind.HOLD_ZERO:
            return Action(standby.rules.zero, 0, "")
        last = call.previous_action
        if last is None:
            last = standby.actions.before(call.episode, call.step)
        if last is None:
            last = standby.actions.latest
        return None if last is None else Action(last.reshape(-1), 0, "")


def _check(call: ActCall, standby: Standby | None, asked_s: float) -> FloatArray | None:
    """Refuses what the session's rules forbid; what was done in the step before, where a rate is limited from it. An
    observation's age is that of when it came, so that waiting does not make it too old."""
    if standby is None:
        return None
    rules = standby.rules
    require_sound(call, rules.environment.observation_dim)
    rules.require_young(call.observed_at_unix_us, asked_s)
    if call.previous_action is not None:
        return _previous(call.previous_action, rules.environment.action_dim)
    if not rules.limiter.limits_change:
        return None
    if call.episode is None or call.step is None:
        missing = [name for name in ("episode", "step") if getattr(call, name) is None]
        text = (
            "the session limits the change from step to step: expected episode and step, which the step before is "
            "found by, or previous_action"
        )
        raise ServiceError(Reason.INVALID_ARGUMENT, text, tuple(Violation(name, text) for name in missing))
    before = standby.actions.before(call.episode, call.step)
    if before is None and call.step > 0:
        raise ServiceError(
            Reason.PREVIOUS_ACTION_UNKNOWN,
            f"the session limits the change from step to step, and what was done in step {call.step - 1} of episode "
            f"{call.episode} is not known (any more): give previous_action, or begin a new episode",
            (Violation("previous_action", "expected what was done in the step before, got nothing"),),
        )
    return before


def _within(call: ActCall, standby: Standby | None, previous: FloatArray | None, action: Action) -> Action:
    """The action within the session's limits, remembered."""
    if standby is None:
        return action
    rules = standby.rules
    if rules.is_tighter or action.policy_version == 0:
        values, limited = rules.limiter(action.action, previous)
        if limited:
            action = replace(action, action=values, limited=True)
    standby.actions.remember(call.episode, call.step, action.action)
    return action


def _previous(given: FloatArray, action_dim: int) -> FloatArray:
    try:
        convert.check_shape(given, "previous_action", (1, action_dim) if given.ndim == 2 else (action_dim,))
        convert.check_finite(given, "previous_action")
    except ValueError as error:
        raise invalid("previous_action", str(error)) from None
    return given.reshape(-1)
