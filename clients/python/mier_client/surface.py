"""What clients offer, written once: each method says which call it makes and by when, and makes none.

`Client` and `AsyncClient` take their methods from here (by `methods.py`), so that one cannot have what the
other lacks. Every plan ends by its deadline, retries included; a write keeps one idempotency key over all its attempts.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy.typing as npt

from mier_client.arrays import flags, floats
from mier_client.calls import ActQuery, Call, Calls, Page, TransitionBatch
from mier_client.errors import OperationFailed, Problem, Unavailable
from mier_client.values import (
    Acted,
    ActingRules,
    Adapted,
    EnvironmentSpec,
    Operation,
    OperationState,
    PolicyVersion,
    PromotionRecord,
    Session,
    SessionMode,
    Submitted,
    Window,
)

Value = TypeVar("Value")

MAX_BUNDLE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Timeouts:
    """Default deadlines, by kind of call."""

    act_s: float = 2.0
    call_s: float = 15.0
    adapt_s: float = 60.0
    watch_s: float = 3600.0
    """Of watching or waiting for one operation."""


@dataclass(frozen=True)
class Plan(Generic[Value]):
    """One call, to be made until it succeeds, fails for good or its time is over."""

    attempt: Callable[[float], Call[Value]]
    """The call of an attempt that may take so many seconds."""
    timeout_s: float
    retried: bool = True


@dataclass(frozen=True)
class Pages(Generic[Value]):
    """A list that comes page by page, each with the deadline."""

    page: Callable[[Page], Plan[tuple[Sequence[Value], str]]]
    size: int = 100
    """Of a page, at most."""


@dataclass(frozen=True)
class Watch(Generic[Value]):
    """A stream that is taken up again where it breaks, until its last value."""

    attempt: Callable[[float], Call[Value]]
    timeout_s: float
    last: Callable[[Value], bool]


class Surface:
    """The methods of a client."""

    def __init__(self, calls: Calls, timeouts: Timeouts) -> None:
        self._calls, self._timeouts = calls, timeouts

    # Sessions

    def create_session(
        self,
        checkpoint: str,
        *,
        seed: int = 0,
        expected_environment: EnvironmentSpec | None = None,
        rules: ActingRules | None = None,
        timeout_s: float | None = None,
    ) -> Plan[Session]:
        """Opens a session on a checkpoint. `seed` is that of the exploration noise; `rules` declare a fallback, limits
        of actions, the age of observations.

        Conflict: `expected_environment` (the caller's own) does not fit the checkpoint's. InvalidRequest: limits that
        are wider than the environment's.
        """
        key = _new_key()
        return self._plan(
            lambda t: self._calls.create_session(checkpoint, seed, expected_environment, key, t, rules), timeout_s
        )

    def get_session(self, session_id: str, *, timeout_s: float | None = None) -> Plan[Session]:
        """The session as it is now."""
        return self._plan(lambda t: self._calls.get_session(session_id, t), timeout_s)

    def list_sessions(self, *, timeout_s: float | None = None) -> Pages[Session]:
        """All sessions, oldest first, page by page; the deadline is that of each page."""
        return Pages(lambda page: self._plan(lambda t: self._calls.list_sessions(page, t), timeout_s))

    def delete_session(self, session_id: str, *, timeout_s: float | None = None) -> Plan[None]:
        """Deletes a session with its transitions, versions and operations."""
        key = _new_key()
        return self._plan(lambda t: self._calls.delete_session(session_id, key, t), timeout_s)

    def pause(self, session_id: str, *, timeout_s: float | None = None) -> Plan[Session]:
        """Freezes learning; acting and submitting go on."""
        key = _new_key()
        return self._plan(lambda t: self._calls.pause(session_id, key, t), timeout_s)

    def resume(self, session_id: str, *, timeout_s: float | None = None) -> Plan[Session]:
        """Lets learning go on."""
        key = _new_key()
        return self._plan(lambda t: self._calls.resume(session_id, key, t), timeout_s)

    def set_mode(self, session_id: str, mode: SessionMode, *, timeout_s: float | None = None) -> Plan[Session]:
        """Whether it adapts by itself, from the next transitions on."""
        key = _new_key()
        return self._plan(lambda t: self._calls.set_mode(session_id, mode, key, t), timeout_s)

    # The robot's loop

    def act(
        self,
        session_id: str,
        observation: npt.ArrayLike,
        *,
        deterministic: bool = False,
        episode: int | None = None,
        step: int | None = None,
        budget_ms: float | None = None,
        observed_at_unix_us: int | None = None,
        previous_action: npt.ArrayLike | None = None,
        timeout_s: float | None = None,
    ) -> Plan[Acted]:
        """The action for an observation [observation_dim].

        Exploring (the default) needs `episode` and `step`: the noise is a function of them and of the
        session's seed. Within `budget_ms` of the request's receipt the service answers, if need be by the session's
        fallback, which the reply names. `previous_action` [action_dim] is what the robot did in the step before: what a
        limited rate counts from; the service's own answer for that step if None.

        DeadlineExceeded: no action within the budget, and no fallback. Conflict: the observation is too old, or the
        rate is limited and the step before not known.
        """
        previous = None if previous_action is None else floats("previous_action", previous_action, 1)
        query = ActQuery(deterministic, episode, step, budget_ms, observed_at_unix_us, previous)
        values = floats("observation", observation, 1)
        return self._plan(lambda t: self._calls.act(session_id, values, query, t), timeout_s, self._timeouts.act_s)

    def submit_transitions(
        self,
        session_id: str,
        *,
        episode: int,
        first_step: int,
        observation: npt.ArrayLike,
        action: npt.ArrayLike,
        reward: npt.ArrayLike,
        next_observation: npt.ArrayLike,
        policy_version: int | Sequence[int],
        terminated: npt.ArrayLike | None = None,
        truncated: npt.ArrayLike | None = None,
        timeout_s: float | None = None,
    ) -> Plan[Submitted]:
        """Appends steps `first_step`, `first_step + 1`, ... of an episode; returns once they are durable.

        `observation`, `next_observation` [n, observation_dim]; `action` [n, action_dim]; `reward`,
        `terminated`, `truncated` [n]; `policy_version` as `act` returned it, one for all rows or [n]; 0 where
        no version chose the action.
        """
        rewards = floats("reward", reward, 1)
        batch = TransitionBatch(
            episode=episode,
            first_step=first_step,
            observation=floats("observation", observation, 2),
            action=floats("action", action, 2),
            reward=rewards,
            next_observation=floats("next_observation", next_observation, 2),
            terminated=flags("terminated", terminated, rewards.size),
            truncated=flags("truncated", truncated, rewards.size),
            policy_version=(policy_version,) if isinstance(policy_version, int) else tuple(policy_version),
        )
        key = _new_key()
        return self._plan(lambda t: self._calls.submit_transitions(session_id, batch, key, t), timeout_s)

    def list_transitions(self, session_id: str, *, timeout_s: float | None = None) -> Pages[TransitionBatch]:
        """The session's transitions in the order of storing, page by page; the deadline is that of each page.

        Consecutive steps of an episode come together, as many as a page holds. What is stored meanwhile comes last.
        """
        return Pages(
            lambda page: self._plan(lambda t: self._calls.list_transitions(session_id, page, t), timeout_s), 1000
        )

    # Learning

    def adapt(self, session_id: str, window: Window | None = None, *, timeout_s: float | None = None) -> Plan[Adapted]:
        """Infers the model context from the window's transitions (all if None), starting at the prior.

        Conflict: too few transitions, or the session is paused.
        """
        key, chosen = _new_key(), window or Window()
        return self._plan(lambda t: self._calls.adapt(session_id, chosen, key, t), timeout_s, self._timeouts.adapt_s)

    def finetune(
        self,
        session_id: str,
        *,
        updates: int | None = None,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> Plan[Operation]:
        """Starts a fine-tune in the background; `updates` as the checkpoint's configuration says if None."""
        key = _new_key()
        return self._plan(lambda t: self._calls.finetune(session_id, updates, seed, key, t), timeout_s)

    def get_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Plan[Operation]:
        """The operation as it is now."""
        return self._plan(lambda t: self._calls.get_operation(operation_id, t), timeout_s)

    def cancel_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Plan[Operation]:
        """Asks an operation to stop; it publishes nothing afterwards."""
        key = _new_key()
        return self._plan(lambda t: self._calls.cancel_operation(operation_id, key, t), timeout_s)

    def watch_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Watch[Operation]:
        """The operation now and at each change, up to its final state. A broken stream is taken up again."""
        return Watch(
            lambda t: self._calls.watch_operation(operation_id, t),
            self._timeouts.watch_s if timeout_s is None else timeout_s,
            lambda operation: operation.state.final,
        )

    def list_versions(self, session_id: str, *, timeout_s: float | None = None) -> Pages[PolicyVersion]:
        """The session's policy versions, oldest first, page by page; the deadline is that of each page."""
        return Pages(lambda page: self._plan(lambda t: self._calls.list_versions(session_id, page, t), timeout_s))

    # Lineage by hand. Each call makes one step, once, and is kept in the record with its reason.

    def promote(self, session_id: str, version: int, *, reason: str, timeout_s: float | None = None) -> Plan[Session]:
        """Makes a version of the session act. Conflict: a version is pinned."""
        key = _new_key()
        return self._plan(lambda t: self._calls.promote(session_id, version, reason, key, t), timeout_s)

    def roll_back(self, session_id: str, *, reason: str, timeout_s: float | None = None) -> Plan[Session]:
        """Makes act what acted before the active version did; again: what acted before that. A version of another
        checkpoint takes the session back there. Conflict: nothing acted before, or a version is pinned."""
        key = _new_key()
        return self._plan(lambda t: self._calls.roll_back(session_id, reason, key, t), timeout_s)

    def pin(
        self, session_id: str, version: int | None = None, *, reason: str, timeout_s: float | None = None
    ) -> Plan[Session]:
        """Makes a version act (the active one if None) and keeps it: later fine-tunes publish versions that do not act,
        and `adapt` moves the model context only."""
        key = _new_key()
        return self._plan(lambda t: self._calls.pin(session_id, version, reason, key, t), timeout_s)

    def unpin(self, session_id: str, *, reason: str, timeout_s: float | None = None) -> Plan[Session]:
        """Lets what is published next act; until then the active version stays."""
        key = _new_key()
        return self._plan(lambda t: self._calls.unpin(session_id, reason, key, t), timeout_s)

    def move(self, session_id: str, checkpoint: str, *, reason: str, timeout_s: float | None = None) -> Plan[Session]:
        """Takes the session to another checkpoint of the same environment, with its transitions and lineage; the
        context is adapted anew and a version published under it.

        Conflict: another environment, paused, pinned, or being fine-tuned.
        """
        key = _new_key()
        return self._plan(
            lambda t: self._calls.move(session_id, checkpoint, reason, key, t), timeout_s, self._timeouts.adapt_s
        )

    def list_promotions(self, session_id: str, *, timeout_s: float | None = None) -> Pages[PromotionRecord]:
        """Which version acted, since when, by whom and why; oldest first, page by page, each with the deadline."""
        return Pages(lambda page: self._plan(lambda t: self._calls.list_promotions(session_id, page, t), timeout_s))

    # Acting by oneself

    def get_bundle(
        self,
        session_id: str,
        *,
        known_tag: str = "",
        known_graphs: Sequence[str] = (),
        max_bytes: int = MAX_BUNDLE_BYTES,
        timeout_s: float | None = None,
    ) -> Plan[bytes | None]:
        """What the session acts with, as one signed file: `mier_client.edge` checks it and acts with it.

        None: the bundle whose `tag` is `known_tag` is what acts, and not old yet. `known_graphs` are the SHA-256 of
        ONNX files that the caller has, which the file leaves out. ServerFault: it has more than `max_bytes`.
        """
        return self._plan(
            lambda t: self._calls.get_bundle(session_id, known_tag, known_graphs, max_bytes, t), timeout_s
        )

    # Operations

    def live(self, *, timeout_s: float | None = None) -> Plan[bool]:
        """Whether the service answers at all. Not retried."""
        return Plan(self._calls.live, self._timeouts.call_s if timeout_s is None else timeout_s, retried=False)

    def ready(self, *, timeout_s: float | None = None) -> Plan[bool]:
        """Whether the service takes calls. Not retried."""
        return Plan(self._calls.ready, self._timeouts.call_s if timeout_s is None else timeout_s, retried=False)

    def _plan(
        self, attempt: Callable[[float], Call[Value]], timeout_s: float | None, default_s: float | None = None
    ) -> Plan[Value]:
        if timeout_s is None:
            timeout_s = self._timeouts.call_s if default_s is None else default_s
        return Plan(attempt, timeout_s)


def succeeded(operation: Operation) -> bool:
    """Whether a fine-tune that is waited for is there; OperationFailed if it ended otherwise."""
    if operation.state.final and operation.state is not OperationState.SUCCEEDED:
        fault = operation.error
        raise OperationFailed(
            Problem(fault.reason, fault.detail)
            if fault
            else Problem(operation.state.name, f"operation {operation.id} was {operation.state}")
        )
    return operation.state is OperationState.SUCCEEDED


def ended_early() -> Unavailable:
    """A stream that ended before its last value."""
    return Unavailable(Problem("STREAM_ENDED", "the stream ended before a final state"))


def _new_key() -> str:
    return uuid.uuid4().hex
