"""A robot's own end of a session: it acts, and keeps what happens, whether or not the service is there.

    service ── bundles ──► puller ──► policy ──► act          the robot's loop: waits for no network
            ◄── steps ─── uplink ◄── queue ◄─── add          on disk before `add` returns

Two threads of its own do the calling, each with a pause that grows where it fails.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy.typing as npt

from mier_client.client import Client
from mier_client.edge.background import Background
from mier_client.edge.bundled import BundledPolicy
from mier_client.edge.bundles import BundleReader, BundleRefused
from mier_client.edge.cache import BundleCache
from mier_client.edge.step_queue import StepQueue
from mier_client.errors import Problem, Unavailable
from mier_client.recorder import Step
from mier_client.retry import RetryPolicy
from mier_client.values import FloatArray
from mier_proto.bundles import Unpacked

_log = logging.getLogger(__name__)
BACKOFF = RetryPolicy(first_backoff_s=0.5, max_backoff_s=30.0)
CALL_S = 10.0
"""For one call of a background thread; nothing that acts waits for it."""
_BATCH_STEPS = 200
"""Sent in one call."""


class Edge:
    """For one session and one loop. Use it as a context manager, or `close` it; the client stays the caller's."""

    def __init__(
        self,
        folder: str | Path,
        session_id: str,
        public_keys: str | Sequence[str],
        client: Client | None = None,
        *,
        bundle: bytes | None = None,
        explore: bool = False,
        first_episode: int = 0,
        max_age_s: float | None = None,
        max_queued_steps: int = 1_000_000,
        poll_every_s: float = 1.0,
        submit_every_s: float = 1.0,
        first_within_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Acts by the folder's last good bundle at once; only where there is none, the first is waited for.

        Args:
            folder: of this robot and session alone; made if it is not there.
            session_id: whose policy acts.
            public_keys: what `mierctl bundles key` printed; several while the service's key is being changed.
            client: what reaches the service; None: bundles come by `take` alone, and steps stay.
            bundle: a file to begin with (`mierctl bundles export`), unless the folder's own bundle is newer.
            explore: whether `act` explores, with the session's seed.
            first_episode: above the episodes that others have recorded for the session.
            max_age_s: the robot's own limit of a bundle's age, where it is lower than the bundle's.
            max_queued_steps: beyond which `add` refuses.
            poll_every_s: between two looks for a new bundle, on average.
            submit_every_s: between two looks for steps to send, on average.
            first_within_s: how long the first bundle is waited for.
            clock: seconds since the epoch; the age of bundles is told by it.
            jitter: uniform in [0, 1), so that many robots do not ask at once.

        Raises:
            BundleRefused: the folder's bundle is damaged or of another session or key, and no other could be had.
            MierError: there is none in the folder, and the service did not give one; or the queue cannot be used.
        """
        self._client, self._poll_every_s, self._submit_every_s = client, poll_every_s, submit_every_s
        self._explore, self._jitter = explore, jitter
        self._session_id = session_id
        self._reader = BundleReader(public_keys, session_id)
        self._cache = BundleCache(Path(folder), self._reader)
        self._taking, self._closing = threading.Condition(), False
        self._bundle = self._first(bundle, first_within_s)
        self.policy = BundledPolicy(self._bundle, explore=explore, max_age_s=max_age_s, clock=clock)
        """What acts, and what it acted with; it counts episodes and steps."""
        self.queue = StepQueue(
            Path(folder) / "steps.sqlite3", session_id, max_steps=max_queued_steps, first_episode=first_episode
        )
        """What the service does not have yet."""
        self.policy.episode = self.queue.next_episode
        self._puller = Background("mier-bundles", self._pull, BACKOFF, jitter)
        self._uplink = Background("mier-steps", self._submit, BACKOFF, jitter)
        if client is not None:
            self._puller.start()
            self._uplink.start()

    def act(self, observation: npt.ArrayLike) -> FloatArray:
        """observation [observation_dim] -> action [action_dim]; asked again before `add`, the same step's again.

        Raises:
            ValueError, BundleTooOld: as of `BundledPolicy.act_at`.
        """
        policy = self.policy
        return policy.act_at(observation, policy.episode, policy.step, not self._explore)

    def add(self, step: Step, *, wait_s: float = 0.0) -> None:
        """Takes what came of the step that was acted last: on disk when this returns. Its end begins the next episode.

        `wait_s`: how long to wait for room. QueueFull, QueueUnavailable: it was not taken, as of `StepQueue.put`.
        """
        self.queue.put(self.policy.episode, self.policy.step, step, wait_s=wait_s)
        self.policy.step += 1
        if step.terminated or step.truncated:
            self.policy.reset()

    def end_episode(self) -> None:
        """The episode was broken off after its last step."""
        if self.policy.step:
            self.policy.reset()

    def take(self, data: bytes) -> None:
        """Acts by the bundle in a file from the next action on. BundleRefused: what acted goes on."""
        with self._taking:
            bundle = self._reader.read(data, self._bundle.graphs.get)
            self.policy.take(bundle)
            self._bundle = bundle
            self._keep(bundle)
            self._taking.notify_all()

    def wait_for_version(self, version: int, timeout_s: float) -> bool:
        """Whether the version acts here within that time; a robot's loop need not wait."""
        with self._taking:
            return self._taking.wait_for(lambda: self.policy.manifest.acts.version == version, timeout_s)

    @property
    def pull_error(self) -> Exception | None:
        """Why the last look for a new bundle failed; None: it did not."""
        return self._puller.error

    @property
    def submit_error(self) -> Exception | None:
        """Why the service did not take steps when they were sent last; None: it did. They are sent again."""
        return self._uplink.error

    def flush(self, timeout_s: float) -> bool:
        """Whether the service has all steps within that time."""
        self._uplink.wake()
        return self.queue.wait_empty(timeout_s)

    def close(self) -> None:
        """Ends the threads, waiting for their calls, seconds at most. What the service does not have stays on disk."""
        self._closing = True
        self._puller.stop()
        self._uplink.stop()
        self.queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _first(self, given: bytes | None, within_s: float) -> Unpacked:
        kept = refused = None
        try:
            kept = self._cache.load()
        except BundleRefused as error:
            refused = error
            _log.warning("the bundle on disk is not used: %s", error)
        if kept is not None and given is None:
            return kept
        if given is None:
            given = self._fetched(within_s, refused)
        bundle = self._reader.read(given)
        if kept is not None and kept.manifest.serial >= bundle.manifest.serial:
            return kept
        self._keep(bundle)
        return bundle

    def _fetched(self, within_s: float, refused: BundleRefused | None) -> bytes:
        if self._client is None:
            detail = "there is no bundle in the folder, and no client to get one: give the file of one"
            raise refused or Unavailable(Problem("NO_BUNDLE", detail))
        data = self._client.get_bundle(self._session_id, timeout_s=within_s)
        if data is None:
            raise Unavailable(Problem("NO_BUNDLE", "the service gave no bundle, although none was known"))
        return data

    def _pull(self) -> float:
        assert self._client is not None, "there is a thread only where there is a client"
        held = self.policy.manifest
        data = self._client.get_bundle(self._session_id, known_tag=held.tag, known_graphs=held.graphs, timeout_s=CALL_S)
        if data is not None:
            self.take(data)
        return self._poll_every_s * (0.5 + self._jitter())

    def _submit(self) -> float:
        assert self._client is not None, "there is a thread only where there is a client"
        while not self._closing and (queued := self.queue.oldest(_BATCH_STEPS)) is not None:
            batch = queued.batch
            self._client.submit_transitions(
                self._session_id,
                episode=batch.episode,
                first_step=batch.first_step,
                observation=batch.observation,
                action=batch.action,
                reward=batch.reward,
                next_observation=batch.next_observation,
                terminated=batch.terminated,
                truncated=batch.truncated,
                policy_version=batch.policy_version,
                timeout_s=CALL_S,
            )
            self.queue.done(queued)
        return self._submit_every_s * (0.5 + self._jitter())

    def _keep(self, bundle: Unpacked) -> None:
        """A disk that refuses does not keep the robot from acting; after a reboot it would act by the one before."""
        try:
            self._cache.save(bundle)
        except OSError as error:
            _log.error("the bundle could not be kept on disk: %s", error)
