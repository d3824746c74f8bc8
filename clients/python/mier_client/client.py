"""The client: one typed, synchronous surface over HTTP and gRPC.

Invariants
- Every call ends by its deadline (`timeout_s`, or the default of its kind in `Timeouts`), retries included.
- A call that is retried is the same call: a write keeps one idempotency key over all its attempts.
- Nothing is shared but the connection, so one client serves many threads.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import numpy.typing as npt

from mier_client.acting import Acting
from mier_client.arrays import flags, floats
from mier_client.errors import (
    DeadlineExceeded,
    OperationFailed,
    Overloaded,
    Problem,
    Unavailable,
)
from mier_client.grpc_transport import GrpcTransport
from mier_client.http_transport import HttpTransport
from mier_client.retry import Retrier
from mier_client.security import KEY_VARIABLE, Tls
from mier_client.transport import ActQuery, Page, TransitionBatch, Transport
from mier_client.values import (
    Acted,
    Adapted,
    EnvironmentSpec,
    Operation,
    OperationState,
    PolicyVersion,
    PromotionRecord,
    Session,
    Submitted,
    Window,
)

Item = TypeVar("Item")

_PAGE_SIZE = 100


@dataclass(frozen=True)
class Timeouts:
    """Default deadlines, by kind of call."""

    act_s: float = 2.0
    call_s: float = 15.0
    adapt_s: float = 60.0
    watch_s: float = 3600.0
    """Of watching or waiting for one operation."""


class Client:
    """A connection to the service."""

    def __init__(self, transport: Transport, timeouts: Timeouts | None = None, retrier: Retrier | None = None) -> None:
        self._transport = transport
        self._timeouts = timeouts or Timeouts()
        self._retrier = retrier or Retrier()

    @classmethod
    def connect(
        cls,
        url: str,
        timeouts: Timeouts | None = None,
        retrier: Retrier | None = None,
        *,
        api_key: str | None = None,
        tls: Tls | None = None,
    ) -> Self:
        """`grpc://host:port`, `grpcs://host:port`, `http://host:port` or `https://host[:port]`; with an s: TLS.

        `api_key` is what `mierctl keys create` printed; None: the environment's MIER_API_KEY, if it is set.
        No call is made yet: a service that cannot be reached is told by the first call.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("grpc", "grpcs", "http", "https") or not parts.hostname:
            raise ValueError(
                f"expected the service's URL, such as grpc://127.0.0.1:50051 or http://127.0.0.1:8000, got {url!r}"
            )
        if tls is not None and parts.scheme not in ("grpcs", "https"):
            raise ValueError(f"tls needs a URL of grpcs:// or https://, got {url!r}")
        key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE) or None
        if parts.scheme in ("grpc", "grpcs"):
            if parts.port is None:
                raise ValueError(f"expected a port, such as grpc://{parts.hostname}:50051, got {url!r}")
            secure = (tls or Tls()) if parts.scheme == "grpcs" else None
            return cls(GrpcTransport(parts.netloc, secure, key), timeouts, retrier)
        return cls(HttpTransport(url, tls, key), timeouts, retrier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the connection. Sessions stay."""
        self._transport.close()

    # Sessions

    def create_session(
        self,
        checkpoint: str,
        *,
        seed: int = 0,
        expected_environment: EnvironmentSpec | None = None,
        timeout_s: float | None = None,
    ) -> Session:
        """Opens a session on a checkpoint. `seed` is that of the exploration noise.

        Conflict: `expected_environment` (the caller's own) does not fit the checkpoint's.
        """
        key = _new_key()
        return self._call(
            lambda t: self._transport.create_session(checkpoint, seed, expected_environment, key, t),
            timeout_s,
        )

    def get_session(self, session_id: str, *, timeout_s: float | None = None) -> Session:
        return self._call(lambda t: self._transport.get_session(session_id, t), timeout_s)

    def list_sessions(self, *, timeout_s: float | None = None) -> Iterator[Session]:
        """All sessions, oldest first, page by page; the deadline is that of each page."""
        return _pages(lambda page: self._call(lambda t: self._transport.list_sessions(page, t), timeout_s))

    def delete_session(self, session_id: str, *, timeout_s: float | None = None) -> None:
        """Deletes a session with its transitions, versions and operations."""
        key = _new_key()
        self._call(lambda t: self._transport.delete_session(session_id, key, t), timeout_s)

    def pause(self, session_id: str, *, timeout_s: float | None = None) -> Session:
        """Freezes learning; acting and submitting go on."""
        key = _new_key()
        return self._call(lambda t: self._transport.pause(session_id, key, t), timeout_s)

    def resume(self, session_id: str, *, timeout_s: float | None = None) -> Session:
        """Lets learning go on."""
        key = _new_key()
        return self._call(lambda t: self._transport.resume(session_id, key, t), timeout_s)

    # The robot's loop

    def act(
        self,
        session_id: str,
        observation: npt.ArrayLike,
        *,
        deterministic: bool = False,
        episode: int | None = None,
        step: int | None = None,
        timeout_s: float | None = None,
    ) -> Acted:
        """The action for an observation [observation_dim].

        Exploring (the default) needs `episode` and `step`: the noise is a function of them and of the
        session's seed.
        """
        query = ActQuery(deterministic, episode, step)
        values = floats("observation", observation, 1)
        return self._call(
            lambda t: self._transport.act(session_id, values, query, t),
            self._timeouts.act_s if timeout_s is None else timeout_s,
        )

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
    ) -> Submitted:
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
        return self._call(lambda t: self._transport.submit_transitions(session_id, batch, key, t), timeout_s)

    @contextmanager
    def open_act_stream(self) -> Iterator[Acting]:
        """For a control loop: `act` on what this yields costs less than `Client.act` where the transport can stream.

        Each stream is for one thread; a broken one is taken up again within the deadline of the act.
        """
        stream = self._transport.open_act_stream()
        try:
            yield Acting(stream, self._retrier, self._timeouts.act_s)
        finally:
            stream.close()

    # Learning

    def adapt(self, session_id: str, window: Window | None = None, *, timeout_s: float | None = None) -> Adapted:
        """Infers the model context from the window's transitions (all if None), starting at the prior.

        Conflict: too few transitions, or the session is paused.
        """
        key, chosen = _new_key(), window or Window()
        return self._call(
            lambda t: self._transport.adapt(session_id, chosen, key, t),
            self._timeouts.adapt_s if timeout_s is None else timeout_s,
        )

    def finetune(
        self,
        session_id: str,
        *,
        updates: int | None = None,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> Operation:
        """Starts a fine-tune in the background; `updates` as the checkpoint's configuration says if None."""
        key = _new_key()
        return self._call(lambda t: self._transport.finetune(session_id, updates, seed, key, t), timeout_s)

    def get_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Operation:
        return self._call(lambda t: self._transport.get_operation(operation_id, t), timeout_s)

    def cancel_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Operation:
        """Asks an operation to stop; it publishes nothing afterwards."""
        key = _new_key()
        return self._call(lambda t: self._transport.cancel_operation(operation_id, key, t), timeout_s)

    def watch_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Iterator[Operation]:
        """The operation now and at each change, up to its final state. A broken stream is taken up again."""
        deadline = time.monotonic() + (self._timeouts.watch_s if timeout_s is None else timeout_s)
        failures = 0
        while True:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise DeadlineExceeded(Problem("DEADLINE_EXCEEDED", f"operation {operation_id} was not final in time"))
            try:
                for operation in self._transport.watch_operation(operation_id, remaining_s):
                    failures = 0
                    yield operation
                    if operation.state.final:
                        return
                cause: Overloaded | Unavailable = Unavailable(
                    Problem("STREAM_ENDED", "the stream ended before a final state")
                )
            except (Overloaded, Unavailable) as error:
                cause = error
            failures += 1
            policy = self._retrier.policy
            pause_s = policy.backoff_s(failures, cause.problem.retry_after_s, self._retrier.jitter())
            if failures >= policy.attempts or time.monotonic() + pause_s >= deadline:
                raise cause
            self._retrier.sleep(pause_s)

    def wait_operation(self, operation_id: str, *, timeout_s: float | None = None) -> Operation:
        """The operation once it has succeeded; OperationFailed if it ended otherwise."""
        for operation in self.watch_operation(operation_id, timeout_s=timeout_s):
            if operation.state is OperationState.SUCCEEDED:
                return operation
            if operation.state.final:
                fault = operation.error
                raise OperationFailed(
                    Problem(fault.reason, fault.detail)
                    if fault
                    else Problem(operation.state.name, f"operation {operation_id} was {operation.state}")
                )
        raise AssertionError("a watch ends with a final state or an error")

    def list_versions(self, session_id: str, *, timeout_s: float | None = None) -> Iterator[PolicyVersion]:
        """The session's policy versions, oldest first, page by page; the deadline is that of each page."""
        return _pages(lambda page: self._call(lambda t: self._transport.list_versions(session_id, page, t), timeout_s))

    # Lineage by hand. Each call makes one step, once, and is kept in the record with its reason.

    def promote(self, session_id: str, version: int, *, reason: str, timeout_s: float | None = None) -> Session:
        """Makes a version of the session act. Conflict: a version is pinned."""
        key = _new_key()
        return self._call(lambda t: self._transport.promote(session_id, version, reason, key, t), timeout_s)

    def roll_back(self, session_id: str, *, reason: str, timeout_s: float | None = None) -> Session:
        """Makes act what acted before the active version did; again: what acted before that. A version of another
        checkpoint takes the session back there. Conflict: nothing acted before, or a version is pinned."""
        key = _new_key()
        return self._call(lambda t: self._transport.roll_back(session_id, reason, key, t), timeout_s)

    def pin(
        self, session_id: str, version: int | None = None, *, reason: str, timeout_s: float | None = None
    ) -> Session:
        """Makes a version act (the active one if None) and keeps it: later fine-tunes publish versions that do not act,
        and `adapt` moves the model context only."""
        key = _new_key()
        return self._call(lambda t: self._transport.pin(session_id, version, reason, key, t), timeout_s)

    def unpin(self, session_id: str, *, reason: str, timeout_s: float | None = None) -> Session:
        """Lets what is published next act; until then the active version stays."""
        key = _new_key()
        return self._call(lambda t: self._transport.unpin(session_id, reason, key, t), timeout_s)

    def move(self, session_id: str, checkpoint: str, *, reason: str, timeout_s: float | None = None) -> Session:
        """Takes the session to another checkpoint of the same environment, with its transitions and lineage; the
        context is adapted anew and a version published under it.

        Conflict: another environment, paused, pinned, or being fine-tuned.
        """
        key = _new_key()
        return self._call(
            lambda t: self._transport.move(session_id, checkpoint, reason, key, t),
            self._timeouts.adapt_s if timeout_s is None else timeout_s,
        )

    def list_promotions(self, session_id: str, *, timeout_s: float | None = None) -> Iterator[PromotionRecord]:
        """Which version acted, since when, by whom and why; oldest first, page by page, each with the deadline."""
        return _pages(
            lambda page: self._call(lambda t: self._transport.list_promotions(session_id, page, t), timeout_s)
        )

    # Operations

    def live(self, *, timeout_s: float | None = None) -> bool:
        """Whether the service answers at all. Not retried."""
        return self._transport.live(self._timeouts.call_s if timeout_s is None else timeout_s)

    def ready(self, *, timeout_s: float | None = None) -> bool:
        """Whether the service takes calls. Not retried."""
        return self._transport.ready(self._timeouts.call_s if timeout_s is None else timeout_s)

    def _call(self, attempt: Callable[[float], Item], timeout_s: float | None) -> Item:
        return self._retrier.call(attempt, self._timeouts.call_s if timeout_s is None else timeout_s)


def _new_key() -> str:
    return uuid.uuid4().hex


def _pages(fetch: Callable[[Page], tuple[Sequence[Item], str]]) -> Iterator[Item]:
    token = ""
    while True:
        items, token = fetch(Page(_PAGE_SIZE, token))
        yield from items
        if not token:
            return
