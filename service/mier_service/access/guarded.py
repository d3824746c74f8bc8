"""The use cases as callers meet them: what each needs of its caller, then the use case itself.

Transports hold these and never the plain ones, so a use case that is not here cannot be called at all. Read from top
to bottom, this file is the table of who may do what (in words: SECURITY.md).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from mier_service.access.gate import Caller, Gate, not_its_session
from mier_service.access.keys import Scope
from mier_service.acting.acting import ActCall, Action
from mier_service.acting.bundles import Bundles, Packed
from mier_service.acting.timely import TimelyActing
from mier_service.core import Core
from mier_service.environments import ExpectedEnvironment
from mier_service.errors import Reason, ServiceError
from mier_service.learning.learning import Learning
from mier_service.sessions.history import History, HistoryValue
from mier_service.sessions.life import Sessions
from mier_service.sessions.lineage import Lineage
from mier_service.sessions.moving import Moving
from mier_service.sessions.recorded import Recorded, RecordedPage
from mier_service.sessions.recording import Recording, Submission
from mier_service.values import (
    ActingRules,
    AdaptationValue,
    OperationValue,
    PromotionPage,
    SessionMode,
    SessionPage,
    SessionValue,
    StoredValue,
    VersionPage,
    WindowValue,
)


class GuardedSessions:
    """See `Sessions`."""

    def __init__(self, plain: Sessions, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    async def create(
        self, checkpoint: str, expected: ExpectedEnvironment | None, seed: int, rules: ActingRules, key: str
    ) -> SessionValue:
        caller = self._gate.require(Scope.ADAPT)
        if caller.session_id is not None:
            raise not_its_session(caller)
        return await self._plain.create(checkpoint, expected, seed, rules, key)

    async def get(self, session_id: str) -> SessionValue:
        self._gate.require(Scope.ACT, session_id)
        return await self._plain.get(session_id)

    async def list(self, page_size: int, page_token: str) -> SessionPage:
        """A bound key's list holds its session, as long as there is one."""
        caller = self._gate.require(Scope.ACT)
        if caller.session_id is None:
            return await self._plain.list(page_size, page_token)
        try:
            own = [await self._plain.get(caller.session_id)]
        except ServiceError as error:
            if error.reason is not Reason.SESSION_NOT_FOUND:
                raise
            own = []
        return SessionPage(sessions=own, next_page_token="")

    async def delete(self, session_id: str, key: str) -> None:
        self._gate.require(Scope.ADMIN, session_id)
        await self._plain.delete(session_id, key)

    async def pause(self, session_id: str, key: str) -> SessionValue:
        self._gate.require(Scope.ADAPT, session_id)
        return await self._plain.pause(session_id, key)

    async def resume(self, session_id: str, key: str) -> SessionValue:
        self._gate.require(Scope.ADAPT, session_id)
        return await self._plain.resume(session_id, key)

    async def set_mode(self, session_id: str, mode: SessionMode, key: str) -> SessionValue:
        self._gate.require(Scope.ADAPT, session_id)
        return await self._plain.set_mode(session_id, mode, key)

    async def versions(self, session_id: str, page_size: int, page_token: str) -> VersionPage:
        self._gate.require(Scope.ACT, session_id)
        return await self._plain.versions(session_id, page_size, page_token)


class GuardedRecording:
    """See `Recording`."""

    def __init__(self, plain: Recording, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    async def submit(self, submission: Submission) -> StoredValue:
        self._gate.require(Scope.ADAPT, submission.session_id)
        return await self._plain.submit(submission)

    async def submit_rows(
        self, session_id: str, body: bytes, episode: int, first_step: int, policy_version: int, key: str
    ) -> StoredValue:
        self._gate.require(Scope.ADAPT, session_id)
        return await self._plain.submit_rows(session_id, body, episode, first_step, policy_version, key)


class GuardedRecorded:
    """See `Recorded`."""

    def __init__(self, plain: Recorded, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    async def transitions(
        self, session_id: str, page_size: int, page_token: str, one_run: bool = False
    ) -> RecordedPage:
        self._gate.require(Scope.ACT, session_id)
        return await self._plain.transitions(session_id, page_size, page_token, one_run)


class GuardedLearning:
    """See `Learning`. The session of an operation never changes, so looking first and doing then is no race."""

    def __init__(self, plain: Learning, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    async def adapt(self, session_id: str, window: WindowValue, key: str) -> AdaptationValue:
        self._gate.require(Scope.ADAPT, session_id)
        return await self._plain.adapt(session_id, window, key)

    async def fine_tune(self, session_id: str, updates: int | None, seed: int, key: str) -> OperationValue:
        self._gate.require(Scope.ADAPT, session_id)
        return await self._plain.fine_tune(session_id, updates, seed, key)

    async def operation(self, operation_id: str) -> OperationValue:
        return await self._own(self._gate.require(Scope.ADAPT), operation_id)

    async def cancel(self, operation_id: str, key: str) -> OperationValue:
        caller = self._gate.require(Scope.ADAPT)
        if caller.session_id is not None:
            await self._own(caller, operation_id)
        return await self._plain.cancel(operation_id, key)

    async def watch(self, operation_id: str) -> AsyncIterator[OperationValue]:
        caller = self._gate.require(Scope.ADAPT)
        if caller.session_id is not None:
            await self._own(caller, operation_id)
        values = cast(AsyncGenerator[OperationValue, None], self._plain.watch(operation_id))
        async with aclosing(values):
            async for value in values:
                self._gate.require(Scope.ADAPT, value.session_id)
                yield value

    async def _own(self, caller: Caller, operation_id: str) -> OperationValue:
        """The operation, if the caller may see it."""
        try:
            value = await self._plain.operation(operation_id)
        except ServiceError as error:
            if caller.session_id is not None and error.reason is Reason.OPERATION_NOT_FOUND:
                raise not_its_session(caller) from None
            raise
        if caller.session_id not in (None, value.session_id):
            raise not_its_session(caller)
        return value


class GuardedLineage:
    """See `Lineage`. Deciding by hand is the operator's: who learns cannot undo a pin that holds against learning."""

    def __init__(self, plain: Lineage, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    async def promote(self, session_id: str, version: int, reason: str, key: str) -> SessionValue:
        self._gate.require(Scope.ADMIN, session_id)
        return await self._plain.promote(session_id, version, reason, key)

    async def roll_back(self, session_id: str, reason: str, key: str) -> SessionValue:
        self._gate.require(Scope.ADMIN, session_id)
        return await self._plain.roll_back(session_id, reason, key)

    async def pin(self, session_id: str, version: int | None, reason: str, key: str) -> SessionValue:
        self._gate.require(Scope.ADMIN, session_id)
        return await self._plain.pin(session_id, version, reason, key)

    async def unpin(self, session_id: str, reason: str, key: str) -> SessionValue:
        self._gate.require(Scope.ADMIN, session_id)
        return await self._plain.unpin(session_id, reason, key)

    async def promotions(self, session_id: str, page_size: int, page_token: str) -> PromotionPage:
        self._gate.require(Scope.ACT, session_id)
        return await self._plain.promotions(session_id, page_size, page_token)


class GuardedMoving:
    """See `Moving`."""

    def __init__(self, plain: Moving, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    async def move(self, session_id: str, checkpoint: str, reason: str, key: str) -> SessionValue:
        self._gate.require(Scope.ADMIN, session_id)
        return await self._plain.move(session_id, checkpoint, reason, key)


class GuardedBundles:
    """See `Bundles`."""

    def __init__(self, plain: Bundles, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    async def get(self, session_id: str, known_tag: str, known_graphs: Sequence[str]) -> Packed | None:
        self._gate.require(Scope.ACT, session_id)
        return await self._plain.get(session_id, known_tag, known_graphs)


class GuardedHistory:
    """See `History`. Operations count as adapting here, too: who may only act gets the rest."""

    def __init__(self, plain: History, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    async def of(self, session_id: str, known_mark: str = "") -> HistoryValue | None:
        caller = self._gate.require(Scope.ACT, session_id)
        return await self._plain.of(session_id, caller.scope.includes(Scope.ADAPT), known_mark)

    async def unfinished(self) -> list[OperationValue]:
        """A bound key sees its session's."""
        caller = self._gate.require(Scope.ADAPT)
        found = await self._plain.unfinished()
        return [operation for operation in found if caller.session_id in (None, operation.session_id)]


class GuardedActing:
    """See `TimelyActing`. Costs an act two look-ups in memory."""

    def __init__(self, plain: TimelyActing, gate: Gate) -> None:
        self._plain = plain
        self._gate = gate

    def act(self, call: ActCall) -> Coroutine[Any, Any, Action]:
        self._gate.require(Scope.ACT, call.session_id)
        return self._plain.act(call)

    async def act_batch(self, calls: list[ActCall | ServiceError]) -> list[Action | ServiceError]:
        """What is about another session than a bound key's is refused by itself, as any other item would be."""
        caller = self._gate.require(Scope.ACT)
        if caller.session_id is not None:
            calls = [
                not_its_session(caller) if isinstance(call, ActCall) and call.session_id != caller.session_id else call
                for call in calls
            ]
        return await self._plain.act_batch(calls)


@dataclass(frozen=True)
class GuardedCore:
    """What transports are given."""

    sessions: GuardedSessions
    recording: GuardedRecording
    recorded: GuardedRecorded
    learning: GuardedLearning
    acting: GuardedActing
    lineage: GuardedLineage
    moving: GuardedMoving
    bundles: GuardedBundles
    history: GuardedHistory

    @staticmethod
    def of(core: Core, gate: Gate) -> GuardedCore:
        return GuardedCore(
            GuardedSessions(core.sessions, gate),
            GuardedRecording(core.recording, gate),
            GuardedRecorded(core.recorded, gate),
            GuardedLearning(core.learning, gate),
            GuardedActing(core.acting, gate),
            GuardedLineage(core.lineage, gate),
            GuardedMoving(core.moving, gate),
            GuardedBundles(core.bundles, gate),
            GuardedHistory(core.history, gate),
        )
