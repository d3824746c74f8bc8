"""What a robot lives through, step by step, submitted in batches.

Invariants
- Steps leave in the order in which they came. One that was not acknowledged is kept and submitted again, which counts
  once (steps are keyed by episode and number), so an outage loses nothing while there is room.
- Memory is bounded: beyond `max_pending_steps` the outage is told instead of borne.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mier_client.client import Client
from mier_client.errors import DeadlineExceeded, Overloaded, Unavailable


@dataclass(frozen=True, eq=False)
class Step:
    """One transition, in environment units."""

    observation: npt.NDArray[np.float32]
    """[observation_dim]"""
    action: npt.NDArray[np.float32]
    """[action_dim]"""
    reward: float
    next_observation: npt.NDArray[np.float32]
    """[observation_dim]"""
    terminated: bool
    """The step ended the episode for good (a fall)."""
    truncated: bool
    """The step was the last for another reason (time ran out)."""
    policy_version: int
    """What chose the action; 0: no version of the session."""


class Recorder:
    """Records the episodes of one session."""

    def __init__(
        self,
        client: Client,
        session_id: str,
        *,
        episode: int = 0,
        submit_every_steps: int = 200,
        max_pending_steps: int = 100_000,
    ) -> None:
        """`episode` is the number of the first episode; one that the session has already would be refused."""
        self._client, self._session_id = client, session_id
        self._submit_every, self._max_pending = submit_every_steps, max_pending_steps
        self._pending: list[tuple[int, int, Step]] = []
        self.episode, self.step = episode, 0

    @property
    def pending_steps(self) -> int:
        """Steps that are not acknowledged yet."""
        return len(self._pending)

    def add(self, step: Step) -> None:
        """Takes a step; submits where enough have come, or the episode ends. An outage is borne while there is room."""
        self._pending.append((self.episode, self.step, step))
        self.step += 1
        ended = step.terminated or step.truncated
        if ended:
            self.episode, self.step = self.episode + 1, 0
        if ended or len(self._pending) % self._submit_every == 0:
            self._submit_if_possible()

    def end_episode(self) -> None:
        """The episode was broken off after its last step. Submits what there is.

        Steps that are submitted already stay as they are: without a mark that says where the episode ends, which its
        number does.
        """
        if self.step == 0:
            return
        if self._pending and self._pending[-1][0] == self.episode:
            episode, number, last = self._pending[-1]
            self._pending[-1] = (episode, number, replace(last, truncated=True))
        self.episode, self.step = self.episode + 1, 0
        self._submit_if_possible()

    def submit(self) -> None:
        """Submits all that is pending; typed errors as of `Client.submit_transitions`, with what is left kept."""
        while self._pending:
            episode, first, _ = self._pending[0]
            rows = [step for number, _, step in self._pending[: self._submit_every] if number == episode]
            self._client.submit_transitions(
                self._session_id,
                episode=episode,
                first_step=first,
                observation=np.stack([row.observation for row in rows]),
                action=np.stack([row.action for row in rows]),
                reward=[row.reward for row in rows],
                next_observation=np.stack([row.next_observation for row in rows]),
                terminated=[row.terminated for row in rows],
                truncated=[row.truncated for row in rows],
                policy_version=[row.policy_version for row in rows],
            )
            del self._pending[: len(rows)]

    def _submit_if_possible(self) -> None:
        try:
            self.submit()
        except (DeadlineExceeded, Overloaded, Unavailable):
            if len(self._pending) >= self._max_pending:
                raise
