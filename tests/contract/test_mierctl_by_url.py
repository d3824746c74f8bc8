"""`mierctl sessions|versions|operations`: a running service looked after by its URL, over both transports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mier_client import Client, OperationState
from mier_client.values import Session
from mier_service.mierctl.__main__ import app
from tests.contract import tiny
from tests.contract.conftest import REWARD
from tests.contract.helpers import LEARN_S, mierctl
from tests.contract.server import Server

Run = Callable[..., Result]


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, server: Server) -> str:
    return server.http if request.param == "http" else f"grpc://{server.grpc}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client.connect(url) as made:
        yield made


@pytest.fixture
def run(url: str) -> Run:
    def command(*arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), "--url", url])

    return command


@pytest.fixture
def session(client: Client) -> Session:
    """With two versions."""
    made = client.create_session(REWARD)
    columns: dict[str, Any] = dict(tiny.arrays(40, 3))
    client.submit_transitions(made.id, episode=0, first_step=0, policy_version=1, **columns)
    client.adapt(made.id)
    return made


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_sessions_are_listed_and_shown(run: Run, session: Session) -> None:
    listed = answer(run("sessions", "list", "--json"))
    assert session.id in [entry["id"] for entry in listed]
    shown = answer(run("sessions", "show", session.id, "--json"))
    assert shown["transitions_count"] == 40
    assert shown["environment"]["observation_names"] == ["x", "y", "dx", "dy"]
    table = run("sessions", "list").stdout.splitlines()
    assert table[0].split()[:3] == ["id", "checkpoint", "state"]
    assert any(line.startswith(session.id) for line in table[1:])
    assert "transitions_count  40" in run("sessions", "show", session.id).stdout


def test_learning_is_frozen_and_let_go_on(run: Run, client: Client, session: Session) -> None:
    assert answer(run("sessions", "pause", session.id, "--json"))[0]["state"] == "paused"
    assert answer(run("sessions", "resume", session.id, "--json"))[0]["state"] == "active"
    assert answer(run("sessions", "mode", session.id, "context", "--json"))[0]["mode"] == "context"
    assert run("sessions", "mode", session.id, "sometimes").exit_code == 2
    assert client.get_session(session.id).mode == "context"


def test_a_session_is_deleted_only_where_it_is_meant(run: Run, client: Client, session: Session) -> None:
    assert "--yes" in str(run("sessions", "delete", session.id).exception)
    assert client.get_session(session.id).id == session.id
    assert run("sessions", "delete", session.id, "--yes").exit_code == 0
    assert session.id not in [entry.id for entry in client.list_sessions()]


def test_versions_are_decided_on_by_hand(run: Run, client: Client, session: Session) -> None:
    assert [entry["number"] for entry in answer(run("versions", "list", session.id, "--json"))] == [1, 2]
    steps = [
        (("promote", session.id, 1), 1),
        (("rollback", session.id), 2),
        (("pin", session.id, 1), 1),
        (("unpin", session.id), 1),
        (("pin", session.id), 1),
    ]
    for command, active in steps:
        (done,) = answer(run("versions", *command, "--reason", "tried", "--json"))
        assert done["active_version"] == active, command
    refused = run("versions", "promote", session.id, 2, "--reason", "tried")
    assert "VERSION_PINNED" in str(refused.exception)
    kinds = [entry["kind"] for entry in answer(run("versions", "history", session.id, "--json"))]
    assert kinds[2:] == ["promote", "rollback", "pin", "unpin", "pin"]
    assert run("versions", "promote", session.id, 2).exit_code == 2, "a decision has a reason"


def test_operations_are_watched_and_cancelled(run: Run, client: Client, session: Session) -> None:
    started = answer(run("operations", "start", session.id, "--updates", 20, "--json"))
    watched = answer(run("operations", "watch", started["id"], "--json"))
    assert (watched["state"], watched["updates_done"]) == ("succeeded", 20)
    assert answer(run("operations", "show", started["id"], "--json"))["result_version"] == watched["result_version"]

    long = answer(run("operations", "start", session.id, "--updates", 1_000_000, "--json"))
    assert answer(run("operations", "cancel", long["id"], "--json"))["cancel_requested"]
    ended = run("operations", "watch", long["id"])
    assert ended.exit_code == 1
    assert "cancelled" in str(ended.exception)
    for operation in client.watch_operation(long["id"], timeout_s=LEARN_S):
        assert operation.state.final
        assert operation.state is OperationState.CANCELLED


def test_an_operator_reads_one_line_and_not_a_traceback(url: str) -> None:
    told = mierctl("sessions", "show", "nobody", "--url", url)
    assert (told.returncode, told.stdout) == (1, "")
    (line,) = told.stderr.splitlines()
    assert line.startswith("mierctl: SESSION_NOT_FOUND"), line
    wrong = mierctl("sessions", "show", "nobody", "--url", "nowhere")
    assert wrong.returncode == 1
    assert "expected the service's URL" in wrong.stderr


def test_shells_can_complete_it() -> None:
    help_text = CliRunner().invoke(app, ["--help"]).stdout
    assert "--install-completion" in help_text
    for group in ("sessions", "versions", "operations", "keys"):
        assert group in help_text
