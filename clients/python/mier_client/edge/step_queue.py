"""What a robot lived through, on its own disk until the service has it: a bounded queue in one SQLite file.

Invariants
- A step that `put` returned for is on disk (WAL, synchronous=FULL), and stays until `done` is told that the service has
  it. Killed or without power at any moment, the queue is afterwards as it was before a call or after it.
- Steps leave in the order in which they came. They may leave twice, where a kill came between the service's answer and
  `done`; the service knows them by (session, episode, step) and counts them once.
- It is bounded, and says so where it is full; nothing is ever dropped to make room.
- One process at a time has it. Episode numbers are never used again, also by the next process.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mier_client.calls import TransitionBatch
from mier_client.errors import MierError, Problem
from mier_client.recorder import Step

_TABLES = """
CREATE TABLE IF NOT EXISTS queue (session_id TEXT, observation_dim INTEGER, action_dim INTEGER, next_episode INTEGER);
CREATE TABLE IF NOT EXISTS steps (
  row INTEGER PRIMARY KEY AUTOINCREMENT, episode INTEGER NOT NULL, step INTEGER NOT NULL,
  policy_version INTEGER NOT NULL, content BLOB NOT NULL, UNIQUE (episode, step)
);
"""
_FLOAT = np.dtype("<f4")


class QueueFull(MierError):
    """There is no room, in the queue or on the disk; the step was not taken."""


class QueueUnavailable(MierError):
    """The file cannot be used: another process has it, it is of another session, or the disk fails."""


@dataclass(frozen=True, eq=False)
class Queued:
    """The oldest steps, as far as they are consecutive ones of one episode."""

    batch: TransitionBatch
    last_row: int
    """For `done`."""


class StepQueue:
    """Safe to share between threads."""

    def __init__(
        self, path: str | Path, session_id: str, *, max_steps: int = 1_000_000, first_episode: int = 0
    ) -> None:
        """Opens the queue, making it if it is not there.

        Args:
            path: its file; its folder is made if need be.
            session_id: whose steps it holds.
            max_steps: more than so many are not taken before some have left.
            first_episode: the lowest number of an episode, where others have recorded for the session before.

        Raises:
            QueueUnavailable: see there.
        """
        self._max_steps = max_steps
        self._changed = threading.Condition()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with _typed_errors(path):
            self._db = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
            try:
                self._open(session_id, first_episode)
            except BaseException:
                self._db.close()
                raise
        self._path = path

    def _open(self, session_id: str, first_episode: int) -> None:
        # Exclusive before WAL: no other process gets in, and no shared memory is needed.
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";"):
            self._db.execute(statement)
        row = self._db.execute("SELECT session_id, observation_dim, action_dim, next_episode FROM queue").fetchone()
        if row is None:
            row = (session_id, 0, 0, first_episode)
            self._db.execute("INSERT INTO queue VALUES (?, ?, ?, ?)", row)
        self._db.execute("COMMIT")
        if row[0] != session_id:
            raise QueueUnavailable(
                Problem("QUEUE_OF_ANOTHER_SESSION", f"expected steps of session {session_id}, it has those of {row[0]}")
            )
        self._dims: tuple[int, int] = row[1:3]
        self._next_episode: int = max(row[3], first_episode)
        self._count: int = self._db.execute("SELECT count(*) FROM steps").fetchone()[0]

    @property
    def pending_steps(self) -> int:
        """Steps that the service is not known to have."""
        return self._count

    @property
    def next_episode(self) -> int:
        """Above every number that a step was put under, in this process or an earlier one."""
        return self._next_episode

    def put(self, episode: int, number: int, step: Step, *, wait_s: float = 0.0) -> None:
        """Takes step `number` of an episode; returns once it is on disk. The same again is taken once.

        Args:
            wait_s: how long to wait for room.

        Raises:
            QueueFull: there was none.
            ValueError: another step has that number, or its arrays have other sizes than those before.
            QueueUnavailable: the disk fails; the step may be there or not, and may be put again.
        """
        content, dims = _content(step), (len(step.observation), len(step.action))
        until_s = time.monotonic() + wait_s
        with self._changed, _typed_errors(self._path):
            held = self._held(episode, number)
            if held is not None:
                if held != (step.policy_version, content):
                    raise ValueError(f"step {number} of episode {episode} is in the queue already, and is another one")
                return
            if self._dims not in ((0, 0), dims):
                raise ValueError(f"expected observation and action of {self._dims}, got {dims} entries")
            while self._count >= self._max_steps:
                if not self._changed.wait(max(0.0, until_s - time.monotonic())) and self._count >= self._max_steps:
                    raise QueueFull(
                        Problem("QUEUE_FULL", f"{self._count} steps wait for the service: stop, or record no more")
                    )
            with self._write():
                self._db.execute(
                    "INSERT INTO steps (episode, step, policy_version, content) VALUES (?, ?, ?, ?)",
                    (episode, number, step.policy_version, content),
                )
                if episode >= self._next_episode or self._dims != dims:
                    after = max(self._next_episode, episode + 1)
                    self._db.execute(
                        "UPDATE queue SET observation_dim = ?, action_dim = ?, next_episode = ?", (*dims, after)
                    )
            self._dims, self._next_episode = dims, max(self._next_episode, episode + 1)
            self._count += 1

    def oldest(self, most: int) -> Queued | None:
        """The oldest steps, at most so many; None: there are none. They stay until `done`."""
        with self._changed, _typed_errors(self._path):
            rows = self._db.execute(
                "SELECT row, episode, step, policy_version, content FROM steps ORDER BY row LIMIT ?", (most,)
            ).fetchall()
        if not rows:
            return None
        _, episode, first, _, _ = rows[0]
        count = next((i for i, row in enumerate(rows) if row[1:3] != (episode, first + i)), len(rows))
        return Queued(self._batch(rows[:count]), rows[count - 1][0])

    def done(self, queued: Queued) -> None:
        """The service has acknowledged these: they leave."""
        with self._changed, _typed_errors(self._path):
            with self._write():
                left = self._db.execute("DELETE FROM steps WHERE row <= ?", (queued.last_row,)).rowcount
            self._count -= left
            self._changed.notify_all()

    def wait_empty(self, timeout_s: float) -> bool:
        """Whether all have left within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout_s)

    def close(self) -> None:
        """Lets go of the file; what is in it stays."""
        with self._changed:
            self._db.close()

    def _held(self, episode: int, number: int) -> tuple[int, bytes] | None:
        found: tuple[int, bytes] | None = self._db.execute(
            "SELECT policy_version, content FROM steps WHERE episode = ? AND step = ?", (episode, number)
        ).fetchone()
        return found

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _batch(self, part: list[tuple[int, int, int, int, bytes]]) -> TransitionBatch:
        rows = np.frombuffer(b"".join(row[4] for row in part), _FLOAT).reshape(len(part), -1).astype(np.float32)
        n, m = self._dims
        return TransitionBatch(
            episode=part[0][1],
            first_step=part[0][2],
            observation=rows[:, :n],
            action=rows[:, n : n + m],
            reward=rows[:, n + m],
            next_observation=rows[:, n + m + 1 : 2 * n + m + 1],
            terminated=rows[:, -2] != 0.0,
            truncated=rows[:, -1] != 0.0,
            policy_version=tuple(row[3] for row in part),
        )


def _content(step: Step) -> bytes:
    """A row as the service's binary bodies have it."""
    rest: npt.NDArray[np.float32] = np.array([step.reward], np.float32)
    flags = np.array([step.terminated, step.truncated], np.float32)
    parts = (step.observation, step.action, rest, step.next_observation, flags)
    if np.shape(step.next_observation) != np.shape(step.observation):
        raise ValueError(f"expected two observations of one size, got {step.observation!r}, {step.next_observation!r}")
    row = np.concatenate([np.asarray(part, _FLOAT).reshape(-1) for part in parts])
    if not np.isfinite(row).all():
        raise ValueError(f"expected finite numbers, got {step}")
    return row.tobytes()


@contextmanager
def _typed_errors(path: str | Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise QueueFull(Problem("QUEUE_FULL", f"there is no room on the disk of {path}")) from error
        detail = f"the queue {path} cannot be used ({error}): is another process using it, or does the disk fail?"
        raise QueueUnavailable(Problem("QUEUE_UNAVAILABLE", detail)) from error
