"""The use cases, in one place: every transport calls these and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from mier_service.acting.bundles import Bundles
from mier_service.acting.timely import TimelyActing
from mier_service.learning.learning import Learning
from mier_service.sessions.history import History
from mier_service.sessions.life import Sessions
from mier_service.sessions.lineage import Lineage
from mier_service.sessions.moving import Moving
from mier_service.sessions.recorded import Recorded
from mier_service.sessions.recording import Recording


@dataclass(frozen=True)
class Core:
    """Create and look after sessions, record what they live through, learn from it, act; decide by hand what acts; give
    away what acts, signed."""

    sessions: Sessions
    recording: Recording
    recorded: Recorded
    learning: Learning
    acting: TimelyActing
    lineage: Lineage
    moving: Moving
    bundles: Bundles
    history: History
