"""The sessions that are ready to act: at most so many, on at most so many loaded policies.

A session takes some hundred bytes here, loaded weights take a megabyte, and many sessions may share them. Both are
bounded: beyond the first bound the session that waited longest goes, beyond the second the policy that nobody acted
with for longest, with the sessions on it. Who goes is read again when it acts next. Belongs to the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mier_service.acting.in_shadow import InShadow
from mier_service.acting.policies import Policy
from mier_service.acting.rules import EnforcedRules


@dataclass(frozen=True)
class Active:
    """What a session acts with now."""

    number: int
    weights_hash: str
    onnx_hash: str
    seed: int
    observation_dim: int
    action_dim: int
    context: npt.NDArray[np.float32]
    """[1, context_dim]"""
    policy: Policy
    model_context: int
    """Number of the newest."""
    ood_percentile: float | None
    """Its percentile."""
    in_place_of: int | None = None
    """The version that should act, whose file is damaged."""
    rules: EnforcedRules | None = None
    """What the session declared of acting; None: nothing."""
    shadow: InShadow | None = None
    """The candidate that acts in its shadow."""


class ReadySessions:
    """Active versions by session; what acted last is last, among sessions and among policies."""

    def __init__(self, max_sessions: int, max_policies: int) -> None:
        self._max_sessions = max_sessions
        self._max_policies = max_policies
        self._active: OrderedDict[str, Active] = OrderedDict()
        self._on: OrderedDict[str, set[str]] = OrderedDict()
        """Sessions by the ONNX file of what they act with; never an empty set."""

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._active

    def __len__(self) -> int:
        return len(self._active)

    def items(self) -> ItemsView[str, Active]:
        return self._active.items()

    def get(self, session_id: str) -> Active | None:
        return self._active.get(session_id)

    def touch(self, session_id: str) -> None:
        """It acts; nothing if it is not here."""
        active = self._active.get(session_id)
        if active is not None:
            self._active.move_to_end(session_id)
            self._on.move_to_end(active.onnx_hash)

    def put(self, session_id: str, active: Active) -> set[str]:
        """In the place of what it acted with before; the sessions that had to go for it."""
        self.remove(session_id)
        self._active[session_id] = active
        self._on.setdefault(active.onnx_hash, set()).add(session_id)
        self._on.move_to_end(active.onnx_hash)
        gone: set[str] = set()
        while len(self._active) > self._max_sessions:
            gone.add(next(iter(self._active)))
            self.remove(next(iter(self._active)))
        while len(self._on) > self._max_policies:
            for other in list(next(iter(self._on.values()))):
                gone.add(other)
                self.remove(other)
        return gone

    def remove(self, session_id: str) -> None:
        """No error if it is not here."""
        active = self._active.pop(session_id, None)
        if active is None:
            return
        sharers = self._on[active.onnx_hash]
        sharers.discard(session_id)
        if not sharers:
            del self._on[active.onnx_hash]
