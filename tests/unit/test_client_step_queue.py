"""The queue on a robot's disk: what it took stays until it is told otherwise, whatever happens to the process."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mier_client.edge import QueueFull, QueueUnavailable, StepQueue
from tests.queue_child import EPISODE_STEPS, step_of

SESSION = "s" * 32


def put(queue: StepQueue, episode: int, numbers: range) -> None:
    for number in numbers:
        queue.put(episode, number, step_of(episode, number, 4, 2))


def emptied(queue: StepQueue, most: int = 4) -> list[tuple[int, int, int]]:
    """Episode, first step and count of each batch that leaves."""
    left = []
    while (oldest := queue.oldest(most)) is not None:
        left.append((oldest.batch.episode, oldest.batch.first_step, len(oldest.batch.reward)))
        queue.done(oldest)
    return left


def test_steps_leave_as_they_came(tmp_path: Path) -> None:
    queue = StepQueue(tmp_path / "steps.sqlite3", SESSION)
    put(queue, 0, range(6))
    put(queue, 1, range(2))
    put(queue, 1, range(5, 7))  # those between are nobody's
    oldest = queue.oldest(4)
    assert oldest is not None
    for i in range(4):
        wanted = step_of(0, i, 4, 2)
        for name in ("observation", "action", "next_observation"):
            np.testing.assert_array_equal(getattr(oldest.batch, name)[i], getattr(wanted, name))
        assert (oldest.batch.reward[i], oldest.batch.policy_version[i]) == (np.float32(wanted.reward), 1)
    assert not oldest.batch.terminated.any()
    assert queue.pending_steps == 10
    assert emptied(queue) == [(0, 0, 4), (0, 4, 2), (1, 0, 2), (1, 5, 2)]
    assert queue.wait_empty(0.0)
    queue.close()


def test_flags_are_kept(tmp_path: Path) -> None:
    queue = StepQueue(tmp_path / "steps.sqlite3", SESSION)
    queue.put(0, 0, replace(step_of(0, 0, 4, 2), truncated=True))
    queue.put(0, 1, replace(step_of(0, 1, 4, 2), terminated=True))
    oldest = queue.oldest(2)
    assert oldest is not None
    assert (oldest.batch.terminated.tolist(), oldest.batch.truncated.tolist()) == ([False, True], [True, False])
    queue.close()


def test_what_was_taken_is_there_for_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "steps.sqlite3"
    queue = StepQueue(file, SESSION, first_episode=3)
    assert queue.next_episode == 3
    put(queue, 3, range(5))
    queue.close()
    queue = StepQueue(file, SESSION)
    assert (queue.pending_steps, queue.next_episode) == (5, 4)
    assert emptied(queue, 10) == [(3, 0, 5)]
    queue.close()
    queue = StepQueue(file, SESSION)
    assert (queue.pending_steps, queue.next_episode) == (0, 4)  # though nothing is in it
    queue.close()


def test_a_full_queue_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Broken on purpose: with the oldest dropped to make room; seen: step 0 is not among what leaves."""
    queue = StepQueue(tmp_path / "steps.sqlite3", SESSION, max_steps=3)
    put(queue, 0, range(3))
    for wait_s in (0.0, 0.01):
        with pytest.raises(QueueFull, match="3 steps wait"):
            queue.put(0, 3, step_of(0, 3, 4, 2), wait_s=wait_s)
    queue.put(0, 2, step_of(0, 2, 4, 2))  # it has that one
    taken = threading.Event()

    def wait_for_room() -> None:
        queue.put(0, 3, step_of(0, 3, 4, 2), wait_s=30.0)
        taken.set()

    waiting = threading.Thread(target=wait_for_room)
    waiting.start()
    assert not taken.is_set()
    oldest = queue.oldest(1)
    assert oldest is not None
    queue.done(oldest)
    waiting.join()
    assert taken.is_set()
    assert emptied(queue) == [(0, 1, 3)]
    queue.close()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    queue = StepQueue(tmp_path / "steps.sqlite3", SESSION)
    good = step_of(0, 0, 4, 2)
    queue.put(0, 0, good)
    with pytest.raises(ValueError, match="step 0 of episode 0 is in the queue already"):
        queue.put(0, 0, replace(good, reward=7.0))
    with pytest.raises(ValueError, match=r"expected observation and action of \(4, 2\)"):
        queue.put(0, 1, step_of(0, 1, 3, 2))
    with pytest.raises(ValueError, match="finite"):
        queue.put(0, 1, replace(good, reward=float("nan")))
    with pytest.raises(ValueError, match="two observations of one size"):
        queue.put(0, 1, replace(good, next_observation=np.zeros(3, np.float32)))
    assert emptied(queue) == [(0, 0, 1)]
    queue.close()


def test_one_process_and_one_session_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "steps.sqlite3"
    queue = StepQueue(file, SESSION)
    with pytest.raises(QueueUnavailable, match="is another process using it"):
        StepQueue(file, SESSION)
    queue.close()
    with pytest.raises(QueueUnavailable, match=f"expected steps of session other, it has those of {SESSION}"):
        StepQueue(file, "other")
    StepQueue(file, SESSION).close()
    file.write_bytes(b"no database" * 100)
    with pytest.raises(QueueUnavailable, match="cannot be used"):
        StepQueue(file, SESSION)


def test_a_full_disk_refuses_the_step_and_keeps_the_others(tmp_path: Path) -> None:
    queue = StepQueue(tmp_path / "steps.sqlite3", SESSION)
    queue.put(0, 0, step_of(0, 0, 400, 2))
    (pages,) = queue._db.execute("PRAGMA page_count").fetchone()
    queue._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(QueueFull, match="no room on the disk"):  # noqa: PT012
        for taken in range(1, 100):
            queue.put(0, taken, step_of(0, taken, 400, 2))
    assert queue.pending_steps == taken
    queue._db.execute("PRAGMA max_page_count = 100000")
    queue.put(0, taken, step_of(0, taken, 400, 2))
    assert emptied(queue, 100) == [(0, 0, taken + 1)]
    queue.close()


def test_every_commit_is_flushed(tmp_path: Path) -> None:
    queue = StepQueue(tmp_path / "steps.sqlite3", SESSION)
    found = [queue._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]
    queue.close()


def test_a_process_that_is_killed_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    """Broken on purpose: with a commit for every tenth step only; seen: steps that were told as taken are gone."""
    file, draw = tmp_path / "steps.sqlite3", random.Random(7)
    put_there: set[tuple[int, int]] = set()
    left: set[tuple[int, int]] = set()
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.queue_child", str(file), SESSION],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert child.stdout is not None
        for _ in range(draw.randrange(20, 150)):
            _note(child.stdout.readline(), put_there, left)
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:
            _note(line, put_there, left)
        child.wait()
        child.stdout.close()
    queue, found = StepQueue(file, SESSION), []
    while (oldest := queue.oldest(1000)) is not None:
        batch = oldest.batch
        for i in range(len(batch.reward)):
            found.append((batch.episode, batch.first_step + i))
            assert batch.reward[i] == np.float32(step_of(*found[-1], 4, 2).reward)
        queue.done(oldest)
    queue.close()
    assert found == sorted(set(found))
    assert put_there - left <= set(found)
    # Beyond those there may be one of each process: taken, and not told any more.
    assert len(set(found) - put_there) <= 4
    assert all(number < EPISODE_STEPS for _, number in found)
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def _note(line: str, put_there: set[tuple[int, int]], left: set[tuple[int, int]]) -> None:
    if line.endswith("\n"):
        word, episode, number = line.split()
        (put_there if word == "put" else left).add((int(episode), int(number)))
