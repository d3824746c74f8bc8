"""Returns that fell since a fine-tuned version acts roll it back, in the transaction that stored the episode.

It is for what the service itself made act: a fine-tuned version that it published, or came back to by such a rollback.
What a person promoted, rolled back to or pinned stays: that was a decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from mier.returns import fall, level_after
from mier_service.errors import ServiceError
from mier_service.store import operation_rows, promotion_rows, return_rows, session_rows
from mier_service.store.promotion_rows import SERVICE, Why
from mier_service.store.return_rows import Ended
from mier_service.values import PromotionKind, SessionValue, VersionOrigin

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class RolledBack:
    """What was done."""

    from_version: int
    to_version: int
    reason: str
    cancelled: str | None
    """The fine-tune that had begun from the weights that were worse."""


def roll_back_if_fallen(
    c: Connection, session: SessionValue, ended: Ended, now_s: float, require_usable: Callable[[str, int, str], None]
) -> RolledBack | None:
    """Works inside the caller's transaction, which has the episode in it. `require_usable` (session, version, ONNX
    hash) refuses a version whose file is damaged: then what acts goes on acting."""
    if session.pinned or ended.weights_hash is None:
        return None
    active, _ = session_rows.get_version(c, session.id, session.active_version)
    if active.origin is not VersionOrigin.FINE_TUNE or active.weights_hash != ended.weights_hash:
        return None
    if promotion_rows.who_made_it_act(c, session.id) != SERVICE:
        return None
    number = promotion_rows.acted_before(c, session.id)
    if number is None:
        return None
    before, onnx_hash = session_rows.get_version(c, session.id, number)
    both = [(session.id, version.weights_hash, session.task_start) for version in (before, active)]
    counts = [return_rows.count_of_weights(c, *policy) for policy in both]
    if before.weights_hash == active.weights_hash or level_after(*counts) is None:
        return None
    found = fall(*(return_rows.of_weights(c, *policy) for policy in both))
    if found is None:
        return None
    try:
        require_usable(session.id, number, onnx_hash)
    except ServiceError as error:
        _log.error("not_rolled_back", session=session.id, version=active.number, detail=error.detail)
        return None
    reason = f"returns fell: {found}"
    promotion_rows.swap(c, session, before, Why(PromotionKind.ROLLBACK, SERVICE, reason, now_s))
    running = operation_rows.unfinished_of_session(c, session.id)
    if running is not None and operation_rows.get(c, running).start_version != active.number:
        running = None
    if running is not None:
        operation_rows.request_cancel(c, running, now_s)
    return RolledBack(active.number, number, reason, running)
