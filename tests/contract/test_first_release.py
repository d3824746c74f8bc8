"""A store of the first release under this one: nothing of it is lost, and it is served as before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mier_client.transport import Page, Transport
from tests.contract import releases
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, MEAN, OBSERVATION
from tests.contract.server import Server, serving


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    releases.make_data_folder(folder, time.time())
    return folder


@pytest.fixture
def old(data: Path, checkpoints: Path) -> Iterator[Server]:
    """A service on the first release's store."""
    with serving(checkpoints, data) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def reached(request: pytest.FixtureRequest, old: Server) -> Iterator[Transport]:
    made = connect(old, request.param)
    yield made
    made.close()


def test_every_row_is_kept(data: Path, checkpoints: Path) -> None:
    """Broken on purpose: with the sessions table copied by Alembic's batch mode, all that belongs to them is gone."""
    before = releases.tables(data)
    assert all(before[name] for name in before if name != "sqlite_sequence")
    with serving(checkpoints, data):
        pass
    after = releases.tables(data)
    for name in set(before) - {"alembic_version", "sqlite_sequence"}:
        assert releases.holds(after[name], before[name]), name
    assert [(row["from_version"], row["to_version"], row["kind"]) for row in after["promotions"]] == [
        (0, 1, "publish"),
        (1, 2, "publish"),
        (2, 3, "publish"),
    ]
    (session,) = after["sessions"]
    assert session["last_used_s"] == max(row["create_time_s"] for row in before["versions"])
    assert {row["checkpoint"] for row in after["versions"]} == {REWARD}
    assert {row["owner"] for row in (*after["sessions"], *after["operations"])} == {"anonymous"}
    assert [(row["owner"], row["session_id"]) for row in after["key_usage"]] == [("anonymous", session["id"])]


def test_reads_and_retries_answer_as_the_first_release_did(old: Server) -> None:
    """Every read, every act and every retry of a write under its key. Broken on purpose: with `pinned` a required
    field, the replies that were kept under keys can no longer be read."""
    asked = 0
    with httpx.Client(base_url=old.http, timeout=CALL_S, trust_env=False) as http:
        for exchange in releases.EXCHANGES:
            if exchange.path.endswith("/cancel"):
                continue
            headers = {"Idempotency-Key": exchange.key} if exchange.key else {}
            reply = http.request(exchange.method, exchange.path, json=exchange.body, headers=headers)
            assert reply.status_code == exchange.status, (exchange, reply.text)
            if exchange.reply is not None:
                assert releases.holds(reply.json(), exchange.reply), (exchange, reply.text)
            asked += 1
    assert asked > 15


def test_the_session_goes_on_under_this_release(reached: Transport) -> None:
    session = reached.get_session(releases.SESSION, CALL_S)
    assert (session.active_version, session.transitions_count, session.pinned) == (3, 40, False)
    third = reached.act(session.id, OBSERVATION, MEAN, CALL_S)
    assert reached.roll_back(session.id, "as before the fine-tune", "", CALL_S).active_version == 2
    assert reached.act(session.id, OBSERVATION, MEAN, CALL_S).policy_version == 2
    assert reached.promote(session.id, 3, "it was better", "", CALL_S).active_version == 3
    assert reached.act(session.id, OBSERVATION, MEAN, CALL_S).action.tobytes() == third.action.tobytes()
    who = [entry.who for entry in reached.list_promotions(session.id, Page(10, ""), CALL_S)[0]]
    assert who == ["service", "service", "service", "anonymous", "anonymous"]
    reached.delete_session(session.id, "", CALL_S)
