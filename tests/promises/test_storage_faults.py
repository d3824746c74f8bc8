"""Promise 3: a store that cannot be written, and files that are damaged. A clear refusal, acting goes on, and once the
cause is gone everything does, without work by hand."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from grpc import insecure_channel as channel
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from mier_client.errors import MierError, Unavailable
from mier_client.transport import Transport
from mier_client.values import OperationState, Session
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, LEARN_S, acts, batch, fine_tune, refused, submit, wait
from tests.promises.cycles import Machine
from tests.promises.launcher import Launcher
from tests.promises.robots import SECOND


@pytest.fixture
def machine(checkpoints: Path, launcher: Launcher, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(launcher, checkpoints, tmp_path / "data")
    assert made.start()
    made.start_worker()
    yield made
    made.kill()


@pytest.fixture
def grpc(machine: Machine) -> Iterator[Transport]:
    assert machine.at is not None
    made = connect(machine.at, "grpc")
    yield made
    made.close()


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Transport]:
    assert machine.at is not None
    made = connect(machine.at, request.param)
    yield made
    made.close()


@contextmanager
def full_disk(machine: Machine) -> Iterator[None]:
    """No process may write a byte to any file: the store, its log, new files; not even to its own log."""
    processes = [process.pid for process in (machine.server, machine.worker) if process is not None]
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in processes}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _unavailable(error: MierError) -> bool:
    return (
        isinstance(error, Unavailable) and error.reason == "STORAGE_UNAVAILABLE" and bool(error.problem.retry_after_s)
    )


def test_a_full_disk_refuses_writes_and_goes_on_acting(machine: Machine, transport: Transport) -> None:
    """Broken on purpose: with OSError let through from a transaction, a move onto a checkpoint whose policy is not in
    the store yet answers INTERNAL; with the log's stream not forgiving, every refused write does."""
    session = transport.create_session(REWARD, 0, None, "", CALL_S)
    submit(transport, session, batch(40))
    transport.adapt(session.id, ALL, "", CALL_S)
    before = acts(transport, session)
    writes: dict[str, Callable[[str], object]] = {
        "submit": lambda key: submit(transport, session, batch(5, episode=1), key),
        "adapt": lambda key: transport.adapt(session.id, ALL, key, CALL_S),
        "create": lambda key: transport.create_session(REWARD, 1, None, key, CALL_S),
        "move": lambda key: transport.move(session.id, SECOND, "r", key, CALL_S),
        "pause": lambda key: transport.pause(session.id, key, CALL_S),
        "resume": lambda key: transport.resume(session.id, key, CALL_S),
        "promote": lambda key: transport.promote(session.id, 1, "r", key, CALL_S),
        "delete": lambda key: transport.delete_session(session.id, key, CALL_S),
    }
    with full_disk(machine):
        for name, write in writes.items():
            with pytest.RaisesExc(Unavailable, check=_unavailable):
                write(f"key of {name}")
            assert acts(transport, session) == before
        assert transport.get_session(session.id, CALL_S).active_version == 2
        assert transport.live(CALL_S)
    # The same keys: what was refused was not done.
    assert submit(transport, session, batch(5, episode=1), "key of submit").stored == 5
    assert transport.move(session.id, SECOND, "r", "key of move", CALL_S).checkpoint == SECOND
    transport.delete_session(session.id, "key of delete", CALL_S)


def test_probes_say_that_the_store_cannot_be_written(machine: Machine, transport: Transport) -> None:
    """Over both transports, and no longer than it lasts; calls are answered all the while.

    Broken on purpose: with a probe that only reads, or writes the value that is there already, the service stays ready
    on a full disk."""
    assert machine.at is not None
    session = transport.create_session(REWARD, 0, None, "", CALL_S)
    with channel(machine.at.grpc) as calls, httpx.Client(base_url=machine.at.http, trust_env=False) as http:
        news = HealthStub(calls).Watch(HealthCheckRequest(), timeout=LEARN_S)
        assert next(news).status == HealthCheckResponse.SERVING
        with full_disk(machine):
            assert next(news).status == HealthCheckResponse.NOT_SERVING
            assert not transport.ready(CALL_S)
            said = http.get("/readyz")
            assert said.status_code == 503
            assert said.json()["status"] == "no store"
            (store,) = [check for check in said.json()["checks"] if check["name"] == "store"]
            assert not store["holds"]
            assert "try again later" in store["detail"]
            assert http.get("/v2/health/ready").status_code == 503
            assert http.get("/livez").status_code == 200
            assert "mier_ready 0.0" in http.get("/metrics").text
            acts(transport, session)
        assert next(news).status == HealthCheckResponse.SERVING
        assert transport.ready(CALL_S)
        assert http.get("/readyz").json()["status"] == "ready"
        news.cancel()


def test_a_full_disk_does_not_end_a_fine_tune(machine: Machine, grpc: Transport) -> None:
    """Broken on purpose: with a failure of the storage counted as an attempt of the fine-tune (as it was), it is given
    up after three of them: FAILED, although the disk has room again."""
    session = grpc.create_session(REWARD, 0, None, "", CALL_S)
    submit(grpc, session, batch(40))
    saves = machine.data / "saves"
    # Only the files: the store itself can be written, so that the operation is claimed again and again.
    saves.rename(machine.data / "saves.away")
    saves.write_bytes(b"not a folder")
    asked = grpc.finetune(session.id, 300, 0, "", CALL_S)
    for seen in grpc.watch_operation(asked.id, LEARN_S):
        machine.wake()
        assert not seen.state.final, seen
        if seen.attempts == 5:
            break
    saves.unlink()
    (machine.data / "saves.away").rename(saves)
    assert wait(grpc, asked).state is OperationState.SUCCEEDED


def test_a_damaged_version_leaves_the_last_good_one_acting(machine: Machine, grpc: Transport) -> None:
    """A fine-tuned version whose file is cut short while it acts, and then at a restart.

    Broken on purpose: as it was, act answered VERSION_UNUSABLE after the restart, and went on to when the file was
    whole again only because someone asked."""
    session = grpc.create_session(REWARD, 0, None, "", CALL_S)
    submit(grpc, session, batch(40))
    grpc.adapt(session.id, ALL, "", CALL_S)
    good = acts(grpc, session)
    machine.wake()
    assert fine_tune(grpc, session, updates=5).result_version == 3
    tuned = acts(grpc, session)
    file = _policy_file(machine, session, 3)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert acts(grpc, session) == tuned, "what is loaded goes on"
    machine.kill()
    assert machine.start()
    assert machine.at is not None
    for kind in ("http", "grpc"):
        again = connect(machine.at, kind)
        assert acts(again, session) == good
        assert again.get_session(session.id, CALL_S).active_version == 3
        again.close()
    again = connect(machine.at, "http")
    again.promote(session.id, 2, "the other one is damaged", "", CALL_S)
    with refused("VERSION_UNUSABLE", "version 3"):
        again.promote(session.id, 3, "is it whole again?", "", CALL_S)
    again.close()


def test_a_mended_file_acts_without_a_word(machine: Machine, grpc: Transport) -> None:
    """Broken on purpose: without `catch_up` the parent acts for good."""
    session = grpc.create_session(REWARD, 0, None, "", CALL_S)
    submit(grpc, session, batch(40))
    machine.wake()
    fine_tune(grpc, session, updates=5)
    tuned = acts(grpc, session)
    file = _policy_file(machine, session, 2)
    whole = file.read_bytes()
    file.write_bytes(b"")
    machine.kill()
    assert machine.start()
    assert machine.at is not None
    again = connect(machine.at, "grpc")
    assert acts(again, session)[0] == 1
    file.write_bytes(whole)
    given_up_s = time.monotonic() + LEARN_S
    while acts(again, session)[0] == 1:
        assert time.monotonic() < given_up_s, "the file is whole again, and nobody looks"
    assert acts(again, session) == tuned
    again.close()


def test_a_read_only_store_is_said_at_the_start(checkpoints: Path, launcher: Launcher, tmp_path: Path) -> None:
    """And it starts once it can be written. Broken on purpose: with the lock's OSError let through, a traceback."""
    machine = Machine(launcher, checkpoints, tmp_path / "data")
    assert machine.start()
    machine.kill()
    with read_only(machine.data):
        assert not machine.start()
    assert machine.start()
    machine.kill()
    log = launcher.log()
    assert "mier-serve: the data folder" in log
    assert "Traceback" not in log


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """For root, whom permissions do not stop, by a mount."""
    if os.geteuid():
        folder.chmod(0o500)
        (folder / "lock").chmod(0o400)
        yield
        folder.chmod(0o700)
        (folder / "lock").chmod(0o600)
        return
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _policy_file(machine: Machine, session: Session, number: int) -> Path:
    query = "SELECT onnx_hash FROM versions WHERE session_id = ? AND number = ?"
    with closing(sqlite3.connect(machine.data / "mier.sqlite3")) as database:
        (found,) = database.execute(query, (session.id, number)).fetchone()
    return machine.data / "policies" / f"{found}.onnx"
