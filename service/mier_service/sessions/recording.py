"""Use case: appending transitions. Acknowledged only once durable; each (session, episode, step) counts once.

An episode that is whole with them is judged in the same transaction: returns that fell roll back
(`learning.regression`), and who stored its last step has the answer once the version of before acts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mier_proto import convert
from mier_service.acting.acting import Acting
from mier_service.carry_through import carry_through
from mier_service.data.storage import Storage, Write
from mier_service.errors import ServiceError, invalid
from mier_service.learning.regression import RolledBack, roll_back_if_fallen
from mier_service.offload import BoundedPool
from mier_service.store import return_rows, session_rows, transition_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.transition_matrix import RowLayout, TransitionBatch
from mier_service.values import MAX_INDEX, EnvironmentValue, SessionMode, StoredValue

FloatArray = npt.NDArray[np.float32]
_BOUND_TOLERANCE = 1e-5
"""Of the action's range: a bound may have gone through float32."""


@dataclass(frozen=True)
class Submission:
    """Consecutive steps of one episode, as they came; row i is step first_step + i."""

    session_id: str
    episode: int
    first_step: int
    observation: FloatArray
    """[n, observation_dim]"""
    action: FloatArray
    """[n, action_dim], environment units"""
    reward: FloatArray
    """[n]"""
    next_observation: FloatArray
    """[n, observation_dim]"""
    terminated: FloatArray
    """[n] 0 or 1"""
    truncated: FloatArray
    """[n] 0 or 1"""
    policy_version: npt.NDArray[np.int64]
    """[1] or [n]; 0: no version chose the action"""
    key: str = ""

    def retry(self) -> Retry:
        arrays: list[npt.NDArray[Any]] = [
            self.observation,
            self.action,
            self.reward,
            self.next_observation,
            self.terminated,
            self.truncated,
            self.policy_version,
        ]
        head = (self.session_id, str(self.episode), str(self.first_step))
        return Retry.of(self.key, "SubmitTransitions", *head, *(array.tobytes() for array in arrays))


@dataclass(frozen=True)
class _Done:
    """What became of a submission."""

    stored: StoredValue
    mode: SessionMode = SessionMode.OFF
    rolled_back: RolledBack | None = None


class Recording:
    """Appends transitions."""

    def __init__(
        self, storage: Storage, acting: Acting, pool: BoundedPool, max_batch_steps: int, roll_back: bool
    ) -> None:
        """`roll_back`: whether returns that fell do."""
        self._storage = storage
        self._acting = acting
        self._pool = pool
        self._max_batch_steps = max_batch_steps
        self._roll_back = roll_back
        self.on_stored: Callable[[str], None] = lambda session_id: None
        """Called on the event loop when something was stored for a session that adapts by itself."""
        self.on_rolled_back: Callable[[str, RolledBack], None] = lambda session_id, done: None
        """Called on the event loop."""

    async def submit(self, submission: Submission) -> StoredValue:
        """Stores the steps that are new; refuses the batch as a whole or takes it as a whole."""
        done = await carry_through(self._pool, self._tell(submission.session_id), self._submit, submission)
        return done.stored

    async def submit_rows(
        self, session_id: str, body: bytes, episode: int, first_step: int, policy_version: int, key: str
    ) -> StoredValue:
        """The same from a binary body of rows (see `transition_matrix`)."""
        done = await carry_through(
            self._pool,
            self._tell(session_id),
            self._submit_rows,
            session_id,
            body,
            episode,
            first_step,
            policy_version,
            key,
        )
        return done.stored

    def _tell(self, session_id: str) -> Callable[[_Done], Awaitable[None]]:
        async def tell(done: _Done) -> None:
            if done.mode is not SessionMode.OFF:
                self.on_stored(session_id)
            if done.rolled_back is not None:
                self.on_rolled_back(session_id, done.rolled_back)
                with suppress(ServiceError):  # the steps are stored all the same; `catch_up` tries again
                    await self._acting.refresh_unless(session_id, done.rolled_back.to_version)

        return tell

    def _submit_rows(
        self, session_id: str, body: bytes, episode: int, first_step: int, policy_version: int, key: str
    ) -> _Done:
        with self._storage.store.read() as c:
            environment = session_rows.get_session(c, session_id).environment
        layout = RowLayout(environment.observation_dim, environment.action_dim)
        try:
            rows = convert.decode_raw(body, "rows", (None, layout.width))
        except ValueError as error:
            raise invalid(
                "rows", f"{error}; a row is observation, action, reward, next_observation, terminated, truncated"
            ) from None
        observation, action, reward, next_observation, terminated, truncated = layout.split(rows)
        return self._submit(
            Submission(
                session_id=session_id,
                episode=episode,
                first_step=first_step,
                observation=observation,
                action=action,
                reward=reward[:, 0],
                next_observation=next_observation,
                terminated=terminated[:, 0],
                truncated=truncated[:, 0],
                policy_version=np.array([policy_version], np.int64),
                key=key,
            )
        )

    def _submit(self, submission: Submission) -> _Done:
        with self._storage.once(submission.retry(), StoredValue, of=submission.session_id) as write:
            if write.earlier is not None:
                return _Done(write.earlier)
            done = self._store(write, submission)
            write.reply = done.stored
        return done

    def _store(self, write: Write[StoredValue], submission: Submission) -> _Done:
        c, session_id = write.c, submission.session_id
        session = session_rows.get_session(c, session_id)
        environment = session.environment
        layout = RowLayout(environment.observation_dim, environment.action_dim)
        self._require_steps(submission)
        batch = _check(submission, environment, layout, session_rows.newest_version_number(c, session_id))
        new = transition_rows.append(c, session_id, layout, batch)
        if new.steps:
            write.added(session_id, new.rows, new.content_bytes)
        stored = StoredValue(
            stored=new.steps,
            duplicates=batch.count - new.steps,
            transitions_count=session_rows.add_to_count(c, session_id, new.steps, self._storage.clock()),
        )
        rolled_back = None
        if new.steps:
            horizon = environment.horizon_steps
            ended = return_rows.note_end(c, session_id, layout, batch, horizon, stored.transitions_count)
            if ended is not None:
                write.added(session_id, rows=1)
                if self._roll_back:
                    usable, now_s = self._acting.require_usable, self._storage.clock()
                    rolled_back = roll_back_if_fallen(c, session, ended, now_s, usable)
        return _Done(stored, session.mode, rolled_back)

    def _require_steps(self, submission: Submission) -> None:
        count = len(submission.observation) if submission.observation.ndim else 0
        if count > self._max_batch_steps:
            text = f"observation: expected at most {self._max_batch_steps} steps in a batch, got {count}: send several"
            raise invalid("observation", text)


def _check(
    submission: Submission, environment: EnvironmentValue, layout: RowLayout, newest_version: int
) -> TransitionBatch:
    s = submission
    n = s.observation.shape[0] if s.observation.ndim else 0
    if n < 1:
        raise invalid("observation", f"observation: expected at least 1 step, got shape {list(s.observation.shape)}")
    if not 0 <= s.episode < MAX_INDEX:
        raise invalid("episode", f"expected 0 <= episode < 2^31, got {s.episode}")
    if not 0 <= s.first_step <= MAX_INDEX - n:
        raise invalid("first_step", f"expected 0 <= first_step <= 2^31 - {n} for {n} steps, got {s.first_step}")
    shapes: dict[str, tuple[int, ...]] = {
        "observation": (n, layout.observation_dim),
        "action": (n, layout.action_dim),
        "reward": (n,),
        "next_observation": (n, layout.observation_dim),
        "terminated": (n,),
        "truncated": (n,),
    }
    for name, shape in shapes.items():
        try:
            convert.check_shape(getattr(s, name), name, shape)
            convert.check_finite(getattr(s, name), name)
        except ValueError as error:
            raise invalid(name, str(error)) from None
    for name in ("terminated", "truncated"):
        if not np.isin(getattr(s, name), (0.0, 1.0)).all():
            raise invalid(name, f"{name}: expected 0 or 1 in each row")
    _check_bounds(s.action, environment)
    return TransitionBatch(
        episode=s.episode,
        first_step=s.first_step,
        rows=layout.join(s.observation, s.action, s.reward, s.next_observation, s.terminated, s.truncated),
        policy_version=_check_versions(s.policy_version, n, newest_version),
    )


def _check_bounds(action: FloatArray, environment: EnvironmentValue) -> None:
    low, high = np.asarray(environment.action_low), np.asarray(environment.action_high)
    slack = _BOUND_TOLERANCE * (high - low)
    outside = (action < low - slack) | (action > high + slack)
    if outside.any():
        row, column = (int(axis) for axis in np.argwhere(outside)[0])
        raise invalid(
            "action",
            f"action: expected {low[column]} to {high[column]} for {environment.action_names[column]!r}, "
            f"got {action[row, column]} in row {row}: send the action as it was applied, clipped to the bounds",
        )


def _check_versions(versions: npt.NDArray[np.int64], n: int, newest: int) -> npt.NDArray[np.int64]:
    if len(versions) not in (1, n):
        raise invalid("policy_version", f"policy_version: expected 1 or {n} numbers, got {len(versions)}")
    unknown = versions[(versions < 0) | (versions > newest)]
    if len(unknown):
        raise invalid(
            "policy_version",
            f"policy_version: expected versions of the session, 1 to {newest}, or 0 for an action that none "
            f"of them chose; got {unknown[0]}",
        )
    return np.broadcast_to(versions, n).copy()
