"""What can be asked of the service, as values: a call says what to send and how to read the answer, and sends nothing.

Invariants
- Nothing here does I/O or waits. `http_calls` and `grpc_calls` describe the same calls for their transports; who sends
  them, blocking or not, is another matter. So nothing is written twice for the asynchronous client.
- `timeout_s` is the deadline of that one call. A write's `key` is its idempotency key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from mier_client.values import (
    Acted,
    ActingRules,
    Adapted,
    EnvironmentSpec,
    FloatArray,
    Operation,
    PolicyVersion,
    PromotionRecord,
    Session,
    SessionMode,
    Submitted,
    Window,
)

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Call(Generic[Value]):
    """One call. Transports have subclasses that know what to send."""

    read: Callable[[Any], Value]
    """The answer, or one message of a stream of answers, as a value; ServerFault if it is not what was promised."""
    timeout_s: float


@dataclass(frozen=True, eq=False)
class TransitionBatch:
    """Consecutive steps of one episode; n >= 1 of them."""

    episode: int
    first_step: int
    """Row i is step `first_step + i`."""
    observation: FloatArray
    """[n, observation_dim]"""
    action: FloatArray
    """[n, action_dim] Environment units."""
    reward: FloatArray
    """[n]"""
    next_observation: FloatArray
    """[n, observation_dim]"""
    terminated: npt.NDArray[np.bool_]
    """[n] The step ended the episode for good (a fall)."""
    truncated: npt.NDArray[np.bool_]
    """[n] The step was the last for another reason (time ran out)."""
    policy_version: tuple[int, ...]
    """[n] or [1] The version that chose each action; 0: none did. What is read back has [n]."""


@dataclass(frozen=True)
class ActQuery:
    """Where an action is asked for; `episode` and `step` are required when exploring."""

    deterministic: bool
    episode: int | None
    step: int | None
    budget_ms: float | None = None
    observed_at_unix_us: int | None = None
    previous_action: FloatArray | None = None
    """[action_dim]"""


@dataclass(frozen=True)
class Page:
    """A page of a list."""

    size: int
    token: str


class Calls(Protocol):
    """Every call that there is."""

    def create_session(
        self,
        checkpoint: str,
        seed: int,
        expected: EnvironmentSpec | None,
        key: str,
        timeout_s: float,
        rules: ActingRules | None = None,
    ) -> Call[Session]: ...

    def get_session(self, session_id: str, timeout_s: float) -> Call[Session]: ...

    def list_sessions(self, page: Page, timeout_s: float) -> Call[tuple[Sequence[Session], str]]:
        """The page, and the token of the next one (empty on the last)."""

    def delete_session(self, session_id: str, key: str, timeout_s: float) -> Call[None]: ...

    def set_mode(self, session_id: str, mode: SessionMode, key: str, timeout_s: float) -> Call[Session]: ...

    def pause(self, session_id: str, key: str, timeout_s: float) -> Call[Session]: ...

    def resume(self, session_id: str, key: str, timeout_s: float) -> Call[Session]: ...

    def submit_transitions(
        self, session_id: str, batch: TransitionBatch, key: str, timeout_s: float
    ) -> Call[Submitted]: ...

    def list_transitions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> Call[tuple[Sequence[TransitionBatch], str]]: ...

    def adapt(self, session_id: str, window: Window, key: str, timeout_s: float) -> Call[Adapted]: ...

    def finetune(
        self, session_id: str, updates: int | None, seed: int, key: str, timeout_s: float
    ) -> Call[Operation]: ...

    def get_operation(self, operation_id: str, timeout_s: float) -> Call[Operation]: ...

    def cancel_operation(self, operation_id: str, key: str, timeout_s: float) -> Call[Operation]: ...

    def watch_operation(self, operation_id: str, timeout_s: float) -> Call[Operation]:
        """A stream: the operation now and at each change, up to its final state."""

    def act(self, session_id: str, observation: FloatArray, query: ActQuery, timeout_s: float) -> Call[Acted]: ...

    def list_versions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> Call[tuple[Sequence[PolicyVersion], str]]: ...

    def promote(self, session_id: str, version: int, reason: str, key: str, timeout_s: float) -> Call[Session]: ...

    def roll_back(self, session_id: str, reason: str, key: str, timeout_s: float) -> Call[Session]: ...

    def pin(self, session_id: str, version: int | None, reason: str, key: str, timeout_s: float) -> Call[Session]: ...

    def unpin(self, session_id: str, reason: str, key: str, timeout_s: float) -> Call[Session]: ...

    def move(self, session_id: str, checkpoint: str, reason: str, key: str, timeout_s: float) -> Call[Session]: ...

    def list_promotions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> Call[tuple[Sequence[PromotionRecord], str]]: ...

    def get_bundle(
        self, session_id: str, known_tag: str, known_graphs: Sequence[str], max_bytes: int, timeout_s: float
    ) -> Call[bytes | None]:
        """The file, at most so large; None: the one with that tag is what acts."""

    def live(self, timeout_s: float) -> Call[bool]: ...

    def ready(self, timeout_s: float) -> Call[bool]: ...
