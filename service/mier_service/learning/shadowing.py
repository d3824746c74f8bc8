"""Candidates in shadow are compared with what acts, and come to act, or not.

Invariants
- Nothing that a candidate does in shadow is ever sent, and no act waits for it: the event loop only notes what was
  asked and answered, and a thread looks at all that came in since, a few times a second.
- What was seen, the verdict and the swap are one transaction. A kill loses the acts since the last look, and nothing
  else; the next ones count on from there.
- A paused session compares on, and decides once it is resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy import Connection

from mier_service.acting.acting import Acting
from mier_service.acting.in_shadow import InShadow, SeenAct
from mier_service.data.storage import Storage
from mier_service.errors import ServiceError
from mier_service.learning.publishing import publication
from mier_service.offload import BoundedPool
from mier_service.store import promotion_rows, session_rows, shadow_rows
from mier_service.store.promotion_rows import SERVICE, Why
from mier_service.store.shadow_rows import Running
from mier_service.values import SHADOW_VERDICTS, PromotionKind, SessionState, ShadowState

_LOOK_EVERY_S = 0.25
_log = structlog.get_logger(__name__)


class Shadowing:
    """Belongs to the event loop."""

    def __init__(
        self, storage: Storage, acting: Acting, pool: BoundedPool, on_verdict: Callable[[ShadowState], None]
    ) -> None:
        self._storage = storage
        self._acting = acting
        self._pool = pool
        self._on_verdict = on_verdict
        self._seen: list[InShadow] = []
        self._wake = asyncio.Event()

    def notice(self, shadow: InShadow) -> None:
        """Acts wait in it."""
        self._seen.append(shadow)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_LOOK_EVERY_S)
            self._wake.clear()
            await self.look()

    async def look(self) -> None:
        """Once, at all that waits."""
        seen, self._seen = self._seen, []
        for shadow in seen:
            try:
                state = await self._pool.run(self._compare, shadow, shadow.take())
                if state is not ShadowState.RUNNING:
                    _log.info("shadow_ended", session=shadow.session_id, version=shadow.version, state=state.value)
                    if state in SHADOW_VERDICTS:
                        self._on_verdict(state)
                    await self._acting.refresh(shadow.session_id)
            except ServiceError as error:
                _log.warning("not_compared", session=shadow.session_id, detail=error.detail)

    def _compare(self, shadow: InShadow, acts: list[SeenAct]) -> ShadowState:
        candidate, acting = shadow.actions(acts)
        with self._storage.store.write(of=shadow.session_id) as c:
            found = shadow_rows.running(c, shadow.session_id)
            if found is None or found.version != shadow.version:
                return ShadowState.SUPERSEDED
            left = max(0, found.rule.acts - found.evidence.acts)
            evidence = found.evidence.after(candidate[:left], acting[:left], shadow.low, shadow.high)
            return _decide(c, shadow.session_id, found._replace(evidence=evidence), self._storage.clock())


def _decide(c: Connection, session_id: str, found: Running, now_s: float) -> ShadowState:
    """Writes down what was seen and what follows from it. Works inside the caller's transaction."""
    session = session_rows.get_session(c, session_id)
    seen, rule = found.evidence, found.rule
    passed = seen.verdict(rule.acts, rule.max_difference)
    told = f"shadow: {seen.acts} acts, differences of {seen.mean:.3g} on average, {seen.largest:.3g} at most"
    if rule.max_difference is not None:
        told += f", {rule.max_difference:g} allowed"
    if passed is None or (passed and session.state is SessionState.PAUSED):
        state, told = ShadowState.RUNNING, ""
    elif not passed:
        state = ShadowState.REJECTED
    elif session.pinned:
        state, told = ShadowState.SUPERSEDED, f"version {session.active_version} is pinned; {told}"
    else:
        state = ShadowState.PASSED
    shadow_rows.change(c, session_id, seen, now_s, state, told)
    if state is ShadowState.PASSED:
        version, _ = session_rows.get_version(c, session_id, found.version)
        why = Why(PromotionKind.PUBLISH, SERVICE, f"{publication(version)}; {told}", now_s)
        promotion_rows.swap(c, session, version, why)
    return state
