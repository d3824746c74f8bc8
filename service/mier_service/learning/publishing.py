"""A new model context, and what it does to what acts. Works inside the caller's transaction.

While a session acts on the checkpoint's weights, a new context makes a new version of them; once fine-tuned, or while
a version is pinned, acting stays as it is. A new task is different: weights that were fine-tuned for the one before
make way for the checkpoint's.
"""

from __future__ import annotations

from sqlalchemy import Connection

from mier_service.data.checkpoints import HeldCheckpoint
from mier_service.store import promotion_rows, session_rows
from mier_service.store.promotion_rows import SERVICE, Why
from mier_service.values import (
    ModelContextValue,
    Promotion,
    PromotionKind,
    SessionValue,
    VersionOrigin,
    VersionValue,
)


def publish_context(
    c: Connection,
    session: SessionValue,
    context: ModelContextValue,
    policy_context: list[float],
    *,
    following_json: str | None = None,
    anew: HeldCheckpoint | None = None,
) -> VersionValue:
    """Writes the context down; the version that acts from now on.

    Args:
        policy_context: what the checkpoint's policy acts under in the new version, if there is one.
        anew: the session's checkpoint, where the task is a new one.
    """
    session_rows.add_model_context(c, session.id, context, following_json)
    now_s = context.create_time.timestamp()
    session_rows.touch(c, {session.id}, now_s)
    active, onnx_hash = session_rows.get_version(c, session.id, session.active_version)
    tuned = active.origin is VersionOrigin.FINE_TUNE
    if session.pinned or (tuned and anew is None):
        return active
    reason = f"adapted to {context.transitions_used} transitions"
    changes = {
        "number": session_rows.newest_version_number(c, session.id) + 1,
        "parent": active.number,
        "policy_context": policy_context,
        "model_context_number": context.number,
        "origin": VersionOrigin.ADAPT,
        "promotion": Promotion.UNGATED,
        "transitions_used": context.transitions_used,
        "create_time": context.create_time,
    }
    if anew is not None:
        reason = f"the task changed: {reason} since"
        changes |= {"weights_hash": anew.weights_hash, "operation_id": None, "seed": None, "configuration_json": None}
        changes["gate"] = None
        # The session was created with these weights, or moved to them: their file is known.
        onnx_hash = session_rows.onnx_of(c, anew.checkpoint.hash, anew.weights_hash) or onnx_hash
    version = active.model_copy(update=changes)
    session_rows.add_version(c, session.id, version, onnx_hash)
    promotion_rows.swap(c, session, version, Why(PromotionKind.PUBLISH, SERVICE, reason, now_s))
    return version


def publication(version: VersionValue) -> str:
    """Why a fine-tuned version acts, for the record."""
    return f"fine-tune {version.operation_id}" + (f"; gate: {version.gate.reason}" if version.gate else "")
