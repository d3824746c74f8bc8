"""A candidate that acts in shadow of what acts, and the acts that it is to be compared on. Costs an act an append."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mier_service.acting.policies import Policy

FloatArray = npt.NDArray[np.float32]
_MOST_WAITING = 1024
"""Acts of one session; further ones are not compared, which only takes the candidate longer."""


class SeenAct(NamedTuple):
    """What was asked, and what was answered."""

    observation: FloatArray
    """[1, observation_dim]"""
    noise: FloatArray
    """[1, action_dim]"""
    action: FloatArray
    """[action_dim], as the acting policy chose it"""


@dataclass(frozen=True, eq=False)
class InShadow:
    """Of one session. Acts come in on the event loop; who compares them takes them there, too."""

    session_id: str
    version: int
    policy: Policy
    context: FloatArray
    """[1, context_dim]"""
    low: FloatArray
    """[action_dim], bounds of actions: the session's"""
    high: FloatArray
    on_first: Callable[[InShadow], None]
    """Told when an act waits and none did."""
    waiting: deque[SeenAct] = field(default_factory=deque)

    def see(self, observation: FloatArray, noise: FloatArray, action: FloatArray) -> None:
        """An act of what acts."""
        if len(self.waiting) >= _MOST_WAITING:
            return
        self.waiting.append(SeenAct(observation, noise, action))
        if len(self.waiting) == 1:
            self.on_first(self)

    def take(self) -> list[SeenAct]:
        """Those that wait, oldest first."""
        taken = list(self.waiting)
        self.waiting.clear()
        return taken

    def actions(self, acts: list[SeenAct]) -> tuple[FloatArray, FloatArray]:
        """What the candidate does about them, and what was done: [n, action_dim] each."""
        observation = np.concatenate([act.observation for act in acts])
        noise = np.concatenate([act.noise for act in acts])
        context = np.repeat(self.context, len(acts), axis=0)
        return self.policy.act(observation, context, noise), np.stack([act.action for act in acts])
