"""A control loop's decisions, tick by tick, without ROS: what is seen, what is done, what is reported.

    tick t    the reward of step t - 1 is here  ─►  step t - 1 is whole: it goes to `on_step`
              observation t  ─►  act  ─►  the command

Invariants
- A step is reported only if it is whole: seen before, done, rewarded, seen after. One that is not ends its episode,
  since an episode's steps go on with each other.
- Without an action the robot's own rule holds (`without_action`): what is commanded then is reported as chosen by no
  version, and where nothing is commanded nobody knows what was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mier_client import Acted, DeadlineExceeded, EnvironmentSpec, Overloaded, Step, Unavailable
from mier_ros2.mapping import ObservationMap, Unusable, command

FloatArray = npt.NDArray[np.float32]


class WithoutAction(StrEnum):
    """What is commanded where no action came in time."""

    HOLD = "hold"
    """The last one once more."""
    ZERO = "zero"
    """Zero, or what is nearest to it within the bounds."""
    SILENT = "silent"
    """Nothing: the controller's own timeout decides."""


class Actor(Protocol):
    """Chooses an action; raises the client's typed errors."""

    def __call__(self, observation: FloatArray, episode: int, step: int) -> Acted: ...


@dataclass
class Inputs:
    """The newest message of each source, and when it came, in seconds of the node's clock."""

    messages: dict[str, Any] = field(default_factory=dict)
    times_s: dict[str, float] = field(default_factory=dict)

    def take(self, source: str, message: Any, now_s: float) -> None:
        self.messages[source] = message
        self.times_s[source] = now_s

    def missing(self, sources: list[str], now_s: float, max_age_s: float) -> list[str]:
        """Sources that were never heard, or not for so long."""
        return [name for name in sources if now_s - self.times_s.get(name, -np.inf) > max_age_s]


@dataclass(frozen=True)
class Tick:
    """What came of one period."""

    command: list[float] | None
    """Data of a Float64MultiArray; None: nothing is commanded."""
    trouble: str = ""
    """Why no action was chosen, in words; empty where one was."""


class Loop:
    """One robot's loop."""

    def __init__(
        self,
        environment: EnvironmentSpec,
        mapping: ObservationMap,
        actor: Actor,
        on_step: Callable[[Step], None],
        on_break: Callable[[], None],
        without_action: WithoutAction = WithoutAction.HOLD,
        max_input_age_s: float = 0.2,
        episode: int = 0,
    ) -> None:
        """`on_break`: the episode ended without a mark in its last step. `episode`: number of the first one."""
        self._environment, self._mapping, self._actor = environment, mapping, actor
        self._on_step, self._on_break = on_step, on_break
        self._without, self._max_age_s = without_action, max_input_age_s
        self._last = np.zeros(environment.action_dim, np.float32)
        self._under_way: tuple[FloatArray, FloatArray, int] | None = None
        self._reward: float | None = None
        self.inputs, self.episode, self.step, self.fallen = Inputs(), episode, 0, False

    def reward(self, value: float) -> None:
        """Of the step under way; the last one counts."""
        self._reward = value if np.isfinite(value) else None

    def begin_episode(self) -> None:
        """By request: what comes next is a new episode, also after a fall."""
        self._break_off()
        self.fallen = False

    def tick(self, now_s: float) -> Tick:
        """One period."""
        if missing := self.inputs.missing(self._mapping.sources, now_s, self._max_age_s):
            self._break_off()
            return self._idle(f"nothing came from {', '.join(missing)} for {self._max_age_s:g} s")
        try:
            observation = self._mapping.observation(self.inputs.messages)
        except Unusable as error:
            self._break_off()
            return self._idle(str(error))
        self._report(observation)
        if self.fallen:
            return self._idle("the robot fell: set it up and begin an episode")
        trouble, version = "", 0
        try:
            acted = self._actor(observation, self.episode, self.step)
            action, version = acted.action, acted.policy_version
        except (DeadlineExceeded, Overloaded, Unavailable) as error:
            if self._without is WithoutAction.SILENT:
                self._break_off()
                return Tick(None, str(error))
            trouble, action = str(error), self._rest()
        self._under_way, self._reward = (observation, action, version), None
        return Tick(self._command(action), trouble)

    def _report(self, after: FloatArray) -> None:
        """The step under way, if it is whole."""
        if self._under_way is None:
            return
        if self._reward is None:
            self._break_off()
            return
        before, action, version = self._under_way
        self._under_way = None
        self.fallen = any(not r.low <= after[r.index] <= r.high for r in self._environment.healthy_ranges)
        last = self.step + 1 >= self._environment.horizon_steps
        self._on_step(Step(before, action, self._reward, after, self.fallen, last and not self.fallen, version))
        ended = self.fallen or last
        self.episode, self.step = (self.episode + 1, 0) if ended else (self.episode, self.step + 1)

    def _break_off(self) -> None:
        """The step under way is dropped; what was reported of its episode is all of it."""
        self._under_way = None
        if self.step:
            self._on_break()
            self.episode, self.step = self.episode + 1, 0

    def _idle(self, trouble: str) -> Tick:
        return Tick(None if self._without is WithoutAction.SILENT else self._command(self._rest()), trouble)

    def _rest(self) -> FloatArray:
        return self._last if self._without is WithoutAction.HOLD else np.zeros_like(self._last)

    def _command(self, action: FloatArray) -> list[float]:
        given = command(action, self._environment.action_low, self._environment.action_high)
        self._last = np.array(given, np.float32)
        return given
