"""What a file of transitions says of where they come from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mier_client.values import Session


def about(session: Session) -> dict[str, Any]:
    """For JSON: the session, its checkpoint, and the environment that gives names, units and bounds to the columns."""
    return {
        "session_id": session.id,
        "checkpoint": session.checkpoint,
        "checkpoint_hash": session.checkpoint_hash,
        "environment": asdict(session.environment),
    }
