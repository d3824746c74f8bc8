"""One worker and more than one who wants it: whoever asks for much does not keep it from the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mier_client.transport import Transport
from mier_client.values import OperationState, Session
from mier_service.access.keys import Scope
from mier_service.data.layout import DATABASE_FILE
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, LEARN_S, batch, submit, wait
from tests.contract.keys import make_key, migrate, wait_until
from tests.contract.server import Server, serving

ENDLESS, UPDATES = 1_000_000, 30


@pytest.fixture
def server(checkpoints: Path, tmp_path: Path) -> Iterator[Server]:
    data = tmp_path / "data"
    migrate(data)
    make_key(data, Scope.ADAPT)
    flags = ("--keys", "required", "--finetune-workers", "1", "--finetune-turn-s", "1", "--drain-within-s", "3")
    with serving(checkpoints, data, *flags) as running:
        yield running


def test_what_one_key_asks_for_does_not_keep_the_worker_from_another(server: Server) -> None:
    """One key has three fine-tunes without an end under way; another asks for one, and then the first key for a short
    one of a fourth session. Those that gave way go on where they were.

    Broken on purpose: without an end of turns (`another_waits` never true) the other key waits for ever; with sessions
    taking turns but not keys, the first key's come first; with the save left out where a turn ends, they begin anew."""
    first, second = (make_key(server.data, Scope.ADAPT) for _ in range(2))
    wait_until(server.http, second, good=True)
    with closing(connect(server, "http", first)) as greedy, closing(connect(server, "grpc", second)) as modest:
        endless = [greedy.finetune(learned(greedy).id, ENDLESS, 0, "", CALL_S) for _ in range(3)]
        done: list[int] = []
        for seen in greedy.watch_operation(endless[0].id, LEARN_S):
            done.append(seen.updates_done)
            if seen.updates_done:
                break
        asked = modest.finetune(learned(modest).id, UPDATES, 5, "", CALL_S)
        before = last_turn(server.data)
        other = wait(modest, asked)
        assert other.state is OperationState.SUCCEEDED
        assert last_turn(server.data, second) - before < 2 * other.attempts, "others had more than every second turn"

        own = wait(greedy, greedy.finetune(learned(greedy).id, UPDATES, 0, "", CALL_S))
        assert own.state is OperationState.SUCCEEDED
        for seen in greedy.watch_operation(endless[0].id, LEARN_S):
            done.append(seen.updates_done)
            if seen.attempts > 1 and seen.updates_done > done[0] and seen.updates_done != done[-2]:
                break
        assert done == sorted(done)


def learned(transport: Transport) -> Session:
    """A session that can be fine-tuned, the same each time."""
    session = transport.create_session(REWARD, 7, None, "", CALL_S)
    submit(transport, session, batch(40))
    return session


def last_turn(data: Path, key: str | None = None) -> int:
    """The number of the last turn, of that key or of any."""
    query = "SELECT max(turn) FROM key_usage WHERE session_id = '' AND (? IS NULL OR owner = ?)"
    owner = key and key.split("_")[1]
    with closing(sqlite3.connect(data / DATABASE_FILE)) as c:
        (turn,) = c.execute(query, (owner, owner)).fetchone()
    return int(turn)
