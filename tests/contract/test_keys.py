"""A key's life: made, taken up, bound, revoked with `mierctl` while the service runs, over both transports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mier_client import AccessDenied, Client
from mier_client.transport import Page, Transport
from mier_client.values import OperationState, Session
from mier_service.access.gate import Gate
from mier_service.access.keys import Scope, hash_of, id_of
from mier_service.data.layout import DATABASE_FILE
from mier_service.errors import Reason, ServiceError
from mier_service.store.url import open_store
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, LEARN_S, MEAN, OBSERVATION, batch, refused, submit
from tests.contract.keys import bearer, make_key, migrate, revoke, wait_until
from tests.contract.server import Server


@pytest.fixture(scope="module")
def guarded(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(checkpoints, tmp_path_factory.mktemp("keys") / "data", "--keys", "required")
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def admin(guarded: Server) -> str:
    """Made while the service runs, which began without any."""
    key = _mierctl(guarded.data, "create", "--scope", "admin").stdout.strip()
    wait_until(guarded.http, key, good=True)
    return key


@pytest.fixture(params=["http", "grpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def transport(guarded: Server, admin: str, kind: str) -> Iterator[Transport]:
    made = connect(guarded, kind, admin)
    yield made
    made.close()


def _mierctl(data: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mier_service.mierctl", "keys", *arguments, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def _bound(server: Server, session: Session, scope: Scope) -> str:
    key = make_key(server.data, scope, session=session.id)
    wait_until(server.http, key, good=True)
    return key


def test_a_service_without_keys_says_how_to_make_one(guarded: Server, admin: str) -> None:
    """Broken on purpose: no word at the start. Nobody could call, and nobody would know why."""
    assert "mierctl keys create" in guarded.log()


def test_a_bound_key_does_the_whole_loop_on_its_session(guarded: Server, transport: Transport, kind: str) -> None:
    """Broken on purpose: the list of a bound key holding all sessions; `_own` refusing whatever is bound."""
    own, other = (transport.create_session(REWARD, seed, None, "", CALL_S) for seed in (1, 2))
    submit(transport, other, batch(40))
    foreign = transport.finetune(other.id, 5, 0, "", CALL_S)
    robot = connect(guarded, kind, _bound(guarded, own, Scope.ADAPT))
    assert [session.id for session in robot.list_sessions(Page(100, ""), CALL_S)[0]] == [own.id]
    submit(robot, own, batch(40))
    robot.adapt(own.id, ALL, "", CALL_S)
    operation = robot.finetune(own.id, 5, 0, "", CALL_S)
    assert [*robot.watch_operation(operation.id, LEARN_S)][-1].state is OperationState.SUCCEEDED
    assert robot.cancel_operation(operation.id, "", CALL_S).state is OperationState.SUCCEEDED
    assert robot.act(own.id, OBSERVATION, MEAN, CALL_S).policy_version == 3
    with refused("PERMISSION_DENIED", own.id):
        robot.act(other.id, OBSERVATION, MEAN, CALL_S)
    with refused("PERMISSION_DENIED", own.id):
        list(robot.watch_operation(foreign.id, CALL_S))
    with refused("PERMISSION_DENIED", own.id):
        robot.cancel_operation(foreign.id, "", CALL_S)
    with refused("PERMISSION_DENIED", own.id):
        robot.create_session(REWARD, 0, None, "", CALL_S)
    with refused("PERMISSION_DENIED", "admin"):
        robot.delete_session(own.id, "", CALL_S)
    with refused("PERMISSION_DENIED", "admin"):
        robot.unpin(own.id, "in the way", "", CALL_S)
    robot.close()
    transport.delete_session(own.id, "", CALL_S)
    left = connect(guarded, kind, _bound(guarded, own, Scope.ADMIN))
    assert left.list_sessions(Page(100, ""), CALL_S) == ([], "")
    left.close()


def test_the_record_names_the_key_that_decided(guarded: Server, transport: Transport, admin: str, kind: str) -> None:
    """Broken on purpose: `enter` without `set_caller`: everybody is anonymous."""
    session = transport.create_session(REWARD, 0, None, "", CALL_S)
    key = _bound(guarded, session, Scope.ADMIN)
    submit(transport, session, batch(40))
    operator = connect(guarded, kind, key)
    operator.adapt(session.id, ALL, "", CALL_S)
    operator.roll_back(session.id, "stumbles", "", CALL_S)
    transport.pin(session.id, None, "demonstration", "", CALL_S)
    operator.unpin(session.id, "over", "", CALL_S)
    operator.move(session.id, REWARD, "it is there already", "", CALL_S)
    entries = operator.list_promotions(session.id, Page(10, ""), CALL_S)[0]
    operator.close()
    mine, bound = id_of(admin), id_of(key)
    assert [(entry.kind.value, entry.who) for entry in entries] == [
        ("publish", mine),
        ("publish", "service"),
        ("rollback", bound),
        ("pin", mine),
        ("unpin", bound),
    ]


def test_a_revoked_key_ends_streams_that_are_open(guarded: Server, transport: Transport, kind: str) -> None:
    """Broken on purpose: `caller` giving what `enter` found, and not looking again."""
    session = transport.create_session(REWARD, 0, None, "", CALL_S)
    submit(transport, session, batch(40))
    key = _bound(guarded, session, Scope.ADAPT)
    robot = connect(guarded, kind, key)
    acting = robot.open_act_stream()
    acting.act(session.id, OBSERVATION, MEAN, CALL_S)
    operation = transport.finetune(session.id, 100_000, 0, "", CALL_S)
    watching = robot.watch_operation(operation.id, LEARN_S)
    next(watching)
    done = json.loads(_mierctl(guarded.data, "revoke", id_of(key) or "", "--json").stdout)
    assert done["state"] == "revoked"
    wait_until(guarded.http, key, good=False)
    with refused("UNAUTHENTICATED", "revoked"):
        acting.act(session.id, OBSERVATION, MEAN, CALL_S)
    transport.cancel_operation(operation.id, "", CALL_S)  # news for who watches
    with refused("UNAUTHENTICATED", "revoked"):
        list(watching)
    acting.close()
    robot.close()


def test_the_client_shows_its_key(guarded: Server, admin: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: `KeyedChannel.stream_stream` without the metadata; `connect` without the environment."""
    url = guarded.http if kind == "http" else f"grpc://{guarded.grpc}"
    monkeypatch.delenv("MIER_API_KEY", raising=False)
    with Client.connect(url) as stranger:
        assert stranger.ready()
        with pytest.raises(AccessDenied, match="UNAUTHENTICATED") as told:
            next(stranger.list_sessions())
    assert told.value.type == "urn:problem-type:mier:unauthenticated"
    monkeypatch.setenv("MIER_API_KEY", f"{admin}\n")
    with Client.connect(url) as client:
        session = client.create_session(REWARD)
        with client.open_act_stream() as acting:
            assert acting.act(session.id, OBSERVATION, deterministic=True).policy_version == 1
        client.delete_session(session.id)
    monkeypatch.setenv("MIER_API_KEY", "of somebody else")
    with Client.connect(url, api_key=admin) as client:
        assert session.id not in {listed.id for listed in client.list_sessions()}


def test_keys_outlive_a_kill(checkpoints: Path, tmp_path: Path) -> None:
    """Broken on purpose: the table not read at the start (a good key then was refused until the first look)."""
    data = tmp_path / "data"
    migrate(data)
    good, gone = make_key(data, Scope.ADMIN), make_key(data, Scope.ADMIN)
    first = Server(checkpoints, data, "--keys", "required")
    revoke(data, gone)
    wait_until(first.http, gone, good=False)
    first.kill()
    # A look at the store comes after an hour only: what holds now was read at the start.
    again = Server(checkpoints, data, "--keys", "required", "--poll-every-s", "3600")
    for key, status in ((good, 200), (gone, 401)):
        assert httpx.get(f"{again.http}/sessions", headers=bearer(key), trust_env=False).status_code == status
    assert again.stop() == 0


def test_mierctl_makes_lists_and_revokes(tmp_path: Path) -> None:
    """Broken on purpose: `list` showing hashes; `revoke` of an unknown id ending with 0."""
    data = tmp_path / "new" / "data"
    _mierctl(data, "list", status=1)
    assert not data.exists()
    made = _mierctl(data, "create", "--scope", "act", "--name", "gripper", "--expires-in", "90d", "--json")
    first = json.loads(made.stdout)
    assert (first["scope"], first["name"], first["state"]) == ("act", "gripper", "good")
    second = _mierctl(data, "create", "--scope", "adapt").stdout.strip()
    assert id_of(first["key"]) == first["id"]
    listed = json.loads(_mierctl(data, "list", "--json").stdout)
    assert listed[0] == {name: value for name, value in first.items() if name != "key"} | {
        "sessions": 0,
        "stored_bytes": 0,
    }
    assert listed[1]["id"] == id_of(second)
    for _ in range(2):
        revoked = json.loads(_mierctl(data, "revoke", first["id"], "--json").stdout)
        assert revoked["state"] == "revoked"
    table = _mierctl(data, "list").stdout
    assert first["id"] in table
    assert "revoked" in table
    for key in (first["key"], second):
        for secret in (key.rpartition("_")[2], hash_of(key)):
            assert secret not in table + json.dumps(listed)
    assert "nobody" in _mierctl(data, "create", "--scope", "act", "--session", "nobody", status=1).stderr
    assert "mierctl keys list" in _mierctl(data, "revoke", "nothing", status=1).stderr
    _mierctl(data, "create", "--scope", "root", status=2)
    _mierctl(data, "create", "--scope", "act", "--expires-in", "soon", status=2)


def test_a_key_ends_at_the_second_and_no_call_waits_for_the_disk(tmp_path: Path) -> None:
    """Broken on purpose: `>` for `>=` in `expired`; `enter` reading the store."""
    migrate(tmp_path)
    key = make_key(tmp_path, Scope.ACT, expire_time_s=time.time() + 1000.0)
    now_s = time.time()
    store = open_store(tmp_path, None, connections=1)
    gate = Gate(store, required=True, clock=lambda: now_s)
    gate.take(gate.read())
    end_s = next(iter(gate._keys.values())).expire_time_s
    assert end_s is not None
    store.close()
    (tmp_path / DATABASE_FILE).unlink()
    gate.enter([f"Bearer {key}"])
    assert gate.require(Scope.ACT, "any").scope is Scope.ACT
    now_s = end_s - 1e-3
    gate.enter([f"bearer {key}"])
    now_s = end_s
    for ask in (lambda: gate.enter([f"Bearer {key}"]), gate.caller):
        with pytest.raises(ServiceError, match="expired") as told:
            ask()
        assert told.value.reason is Reason.UNAUTHENTICATED


def test_a_call_that_did_not_come_through_the_gate_is_refused(tmp_path: Path) -> None:
    """Broken on purpose: `caller` taking a call without a key for anybody's."""
    migrate(tmp_path)
    make_key(tmp_path, Scope.ADMIN)
    store = open_store(tmp_path, None, connections=1)
    gate = Gate(store, required=True, clock=time.time)
    gate.take(gate.read())
    store.close()
    with pytest.raises(ServiceError) as told:
        gate.require(Scope.ACT)
    assert told.value.reason is Reason.UNAUTHENTICATED
