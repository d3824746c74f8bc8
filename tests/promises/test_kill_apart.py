"""Promise 3, at moments that traffic on a grown store does not reach: the first start, the first policy of a
checkpoint, what a crash left behind being cleared away, an idle session being deleted. Each has a scene of its own.

All moments in the long form (MIER_PROMISES_LONG=1), the last of each place in the short one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mier_client.transport import Page, Transport
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, acts, batch, submit
from tests.promises.cycles import FLAGS, Machine
from tests.promises.launcher import Launcher
from tests.promises.ledger import UNANSWERED, Books, Ledger, text
from tests.promises.robots import SECOND
from tests.promises.write_paths import TRIED_APART, points_apart

LAST = [f"{moments[-1]}: {place}" for place, moments in TRIED_APART.items()]
POINTS = points_apart() if os.environ.get("MIER_PROMISES_LONG") else LAST


def _create(transport: Transport) -> object:
    return transport.create_session(REWARD, 1, None, "the key", CALL_S)


def _move(transport: Transport) -> object:
    (session,) = transport.list_sessions(_page(), CALL_S)[0]
    return transport.move(session.id, SECOND, "r", "another key", CALL_S)


CALLS: dict[str, Callable[[Transport], object]] = {
    "life.Sessions._create": _create,
    "moving.Moving._record": _move,
}
AT_START = {"store.Store.migrate", "bootstrap.Service._announce", "storage.Storage.prepare", "folder_mark._write_mark"}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_apart_from_traffic(point: str, checkpoints: Path, launcher: Launcher, tmp_path: Path) -> None:
    """Killed, started again, and all is as if it had not been: the same key makes one session, one move; nothing
    that no row names stays; what is there is whole.

    Broken on purpose: with `prepare` not clearing up, leftovers stay."""
    place = point.split(": ")[1]
    idle = place == "retention.Retention._delete"
    flags = (*FLAGS, "--keep-idle-sessions-s", "0.2") if idle else FLAGS
    machine = Machine(launcher, checkpoints, tmp_path / "data", flags)
    armed = machine.armed(point, 1, True)
    if place in ("moving.Moving._record", "storage.Storage.prepare"):
        _with_server(machine, _create)
    if place == "storage.Storage.prepare":
        for kind, name in (("weights", "0" * 64 + ".safetensors"), ("saves", "cut-off.tmp"), ("policies", "1.onnx")):
            (machine.data / kind / name).write_bytes(b"left behind")
    if place in AT_START:
        machine.arm()
        if machine.start(armed):  # the announcement is a file that is written after the server listens
            machine.end()
    else:
        assert machine.start(armed)
        machine.arm()
        assert machine.at is not None
        transport = connect(machine.at, "grpc")
        if idle:
            _create(transport)
        else:
            with pytest.raises(UNANSWERED):
                CALLS[place](transport)
        machine.end()
        transport.close()
    assert machine.killed_itself(), "the moment was not reached"

    machine.flags = FLAGS
    assert machine.start()
    assert machine.at is not None
    transport = connect(machine.at, "http")
    if place in CALLS:
        first = CALLS[place](transport)
        assert text(CALLS[place](transport)) == text(first)
    elif not idle:
        _create(transport)
    sessions = transport.list_sessions(_page(), CALL_S)[0]
    assert len(sessions) == (int(point.startswith("before")) if idle else 1)
    for session in sessions:
        assert acts(transport, session)[0] == session.active_version
        assert submit(transport, session, batch(3)).stored == 3
    Books(Ledger(), machine.data).compare(exact=True)
    assert not list(machine.data.glob("*/*.tmp"))
    with closing(sqlite3.connect(machine.data / "mier.sqlite3")) as c:
        named = {row[0] for row in c.execute("SELECT onnx_hash FROM versions")}
    assert {path.stem for path in (machine.data / "policies").iterdir()} == named
    assert not list((machine.data / "weights").iterdir())
    transport.close()
    machine.kill()


def _with_server(machine: Machine, call: Callable[[Transport], object]) -> None:
    assert machine.start()
    assert machine.at is not None
    transport = connect(machine.at, "http")
    call(transport)
    transport.close()
    machine.kill()


def _page() -> Page:
    return Page(10, "")
