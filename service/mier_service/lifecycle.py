"""Whether the service may be asked: starting, ready, draining."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Goes one way only."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """Read by the health routes and by the transports. Belongs to the event loop."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY
