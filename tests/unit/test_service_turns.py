"""Whose fine-tune a worker takes next: keys take turns, and so do the sessions of a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mier_service.data.storage import Storage
from mier_service.store import operation_rows, session_rows
from mier_service.values import OperationState, SessionState
from tests.unit.stored import operation_value, session_value


class Queue:
    """Fine-tunes of sessions that are named for their key: `a1` and `a2` are of the key `a`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def ask(self, *names: str) -> None:
        """Each on a new session of that name."""
        for name in names:
            with self._storage.store.write() as c:
                session_rows.add_session(c, session_value(name, 0.0), name[0])
                operation_rows.add(c, operation_value(name, name, 0.0), 0, 0, 0, owner=name[0])

    def take(self) -> str:
        """Claims one; its name."""
        with self._storage.store.write() as c:
            row = operation_rows.claim(c, now_s=0.0, lease_s=10.0)
        return "" if row is None else str(row.id)

    def turn(self) -> str:
        """Claims one and gives it back, not finished."""
        name = self.take()
        self.end(name, OperationState.QUEUED)
        return name

    def end(self, name: str, state: OperationState = OperationState.SUCCEEDED) -> None:
        with self._storage.store.write() as c:
            token = operation_rows.get_row(c, name).lease_token
            operation_rows.change(c, name, token, 0.0, state=state.value)

    def delete(self, name: str) -> None:
        with self._storage.store.write() as c:
            session_rows.delete_session(c, name)

    def another_waits(self, name: str) -> bool:
        with self._storage.store.read() as c:
            return operation_rows.another_waits(c, name, 0.0)

    def pause(self, name: str) -> None:
        with self._storage.store.write() as c:
            session_rows.set_state(c, name, SessionState.PAUSED)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    storage = Storage(tmp_path / "data", connections=1, clock=lambda: 0.0)
    storage.prepare()
    yield Queue(storage)
    storage.close()


def test_keys_take_turns(queue: Queue) -> None:
    """Broken on purpose: by row alone, as it was, the others wait for all that `a` asked for."""
    queue.ask("a1", "a2", "a3", "a4", "b1", "c1", "b2")
    taken = [queue.take() for _ in range(8)]
    assert taken == ["a1", "b1", "c1", "a2", "b2", "a3", "a4", ""]


def test_sessions_of_a_key_take_turns(queue: Queue) -> None:
    """They are given back unfinished each time. Broken on purpose: by key and row, `a1` always comes first."""
    queue.ask("a1", "a2", "a3", "b1")
    assert [queue.turn() for _ in range(9)] == ["a1", "b1", "a2", "b1", "a3", "b1", "a1", "b1", "a2"]


def test_who_comes_late_does_not_wait_for_those_before(queue: Queue) -> None:
    queue.ask("a1", "a2", "a3")
    assert [queue.turn() for _ in range(4)] == ["a1", "a2", "a3", "a1"]
    queue.ask("b1", "a4")
    assert [queue.turn() for _ in range(4)] == ["b1", "a4", "b1", "a2"]


def test_deleting_sessions_does_not_bring_a_turn_forward(queue: Queue) -> None:
    """Broken on purpose: with the turns of a key kept with its sessions, `a` would come before `b` for ever."""
    queue.ask("b1", "a1", "b2", "a2", "a3")
    assert queue.take() == "b1"
    for name in ("a1", "b2", "a2", "a3"):
        assert queue.take() == name
        queue.delete(name)


def test_the_turn_is_over_only_for_those_who_can_have_it(queue: Queue) -> None:
    """Not for a session that is paused, nor for what another worker is at, nor for itself."""
    queue.ask("a1", "a2", "b1")
    assert queue.take() == "a1"
    assert queue.another_waits("a1")
    assert queue.take() == "b1"
    queue.pause("a2")
    assert not queue.another_waits("a1")
    queue.ask("b2")
    assert queue.another_waits("a1")
