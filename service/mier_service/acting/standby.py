"""What can answer at once for a session whose own policy is not there in time.

Invariants
- There is a standby for each session that declared a fallback or has limits, whether or not it is kept ready to act;
  the least recently used go first, beyond many times as many sessions as act.
- It holds no weights but those of base policies, which all sessions of a checkpoint share.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from mier_proto.last_actions import LastActions
from mier_service.acting.ready_sessions import Active
from mier_service.acting.rules import EnforcedRules
from mier_service.values import FallbackKind

NEEDS_BASE = (FallbackKind.INCUMBENT, FallbackKind.BASE_POLICY)


@dataclass(eq=False)
class Standby:
    """Of one session."""

    rules: EnforcedRules
    base: Active | None = None
    """Version 1, where the fallback may need it and its file is whole."""
    incumbent: Active | None = None
    """What the session acted with when it was last read, if it is on the base policy's weights."""
    actions: LastActions = field(default_factory=LastActions)


class Standbys:
    """By session; belongs to the event loop once the service has begun."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held: OrderedDict[str, Standby] = OrderedDict()

    def get(self, session_id: str) -> Standby | None:
        """The session's, which counts as used."""
        found = self._held.get(session_id)
        if found is not None:
            self._held.move_to_end(session_id)
        return found

    def keep(self, session_id: str, rules: EnforcedRules, base: Active | None, active: Active | None) -> Standby:
        """The session was read; its last actions stay."""
        found = self._held.get(session_id)
        if found is None:
            found = self._held[session_id] = Standby(rules)
            while len(self._held) > self.capacity:
                self._held.popitem(last=False)
        found.rules, found.base = rules, base or found.base
        shared = active is not None and found.base is not None and found.base.policy is active.policy
        found.incumbent = active if shared else None
        self._held.move_to_end(session_id)
        return found

    def forget(self, session_id: str) -> None:
        """The session is deleted."""
        self._held.pop(session_id, None)
