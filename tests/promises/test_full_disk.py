"""Promises 1 and 3 on a disk that is really full: the data folder is on a tmpfs of a few MiB (`mount`, as root, as for
the read-only store). Where mounting is refused, no process may write a byte to any file (RLIMIT_FSIZE).

On a real one some writes still fit: into a log that is used again, into the rest of a page. All that is asked here is
that each write is done or refused, and that what was refused was not done."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from mier_client.errors import Unavailable
from mier_client.transport import Transport
from mier_client.values import OperationState
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, LEARN_S, batch, submit, wait
from tests.promises.cycles import Machine
from tests.promises.launcher import Launcher
from tests.promises.ledger import Books, Ledger
from tests.promises.robots import Robot, observe
from tests.promises.test_storage_faults import full_disk

DISK_BYTES = 12 * 1024 * 1024
BIG_STEPS = 2000


class Disk:
    """A folder, and a way to fill what it is on."""

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder = folder
        self._mounted = mounted

    def full(self, machine: Machine) -> AbstractContextManager[None]:
        return self._filled() if self._mounted else full_disk(machine)

    @contextmanager
    def _filled(self) -> Iterator[None]:
        filler = self.folder / "filler"
        try:
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                _fill(file)
            yield
        finally:
            filler.unlink()


def _fill(file: FileIO) -> None:
    while file.write(bytes(4096)):
        pass


@pytest.fixture
def disk() -> Iterator[Disk]:
    # Not among pytest's own folders: a mount that a killed run left there would be in the way of every later run.
    folder = Path(mkdtemp(prefix="mier-full-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield Disk(folder, mounted)
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)
    rmtree(folder)


@pytest.fixture
def machine(disk: Disk, checkpoints: Path, launcher: Launcher) -> Iterator[Machine]:
    made = Machine(launcher, checkpoints, disk.folder / "data")
    yield made
    made.kill()


def test_a_disk_that_fills_up_under_traffic(
    disk: Disk, machine: Machine, launcher: Launcher, record_property: Callable[[str, object], None]
) -> None:
    """Robots over both transports and a fine-tune; the disk fills up; SIGKILL; a start on the full disk; room again.

    Broken on purpose: with the failure of a commit swallowed; seen: there is always room."""
    ledger = Ledger()
    books = Books(ledger, machine.data)
    assert machine.start()
    machine.start_worker()
    transports = _connect(machine)
    learner = transports["grpc"].create_session(REWARD, 0, None, "", CALL_S)
    submit(transports["grpc"], learner, batch(40))
    asked = transports["grpc"].finetune(learner.id, 400_000, 0, "", CALL_S)
    machine.wake()
    for seen in transports["grpc"].watch_operation(asked.id, LEARN_S):
        if seen.updates_done > 50:
            break
    robots = [Robot(ledger, kind, 7 + i, learns=False) for i, kind in enumerate(transports)]
    threads = [
        threading.Thread(target=robot.live, args=(transport, 1000, threading.Event()))
        for robot, transport in zip(robots, transports.values(), strict=True)
    ]
    for thread in threads:
        thread.start()
    with ledger.changed:
        assert ledger.changed.wait_for(lambda: ledger.tally["acknowledged"] >= 40, CALL_S)
    with disk.full(machine):
        refused = _until_refused(transports["http"], learner.id)
        for thread in threads:
            thread.join(CALL_S)
            assert not thread.is_alive(), "a robot still finds room"
        assert [robot.fault for robot in robots if robot.fault is not None] == []
        for transport in transports.values():
            assert observe(transport, learner.id)[0] == 1, "acting goes on"
            assert transport.get_session(learner.id, CALL_S).transitions_count == 40 + BIG_STEPS * refused
            assert transport.live(CALL_S)
            transport.close()
        machine.kill()
        books.compare(exact=False)
        if machine.start():  # there may be room for that
            machine.kill()
    assert machine.start()
    machine.start_worker()
    transports = _connect(machine)
    books.compare(exact=False)
    unanswered = sum(not ask.closed for ask in ledger.asks)
    assert unanswered >= len(robots)
    ledger.settle(transports)
    ledger.repeat(transports, 6)
    transports["http"].cancel_operation(asked.id, "", CALL_S)
    machine.wake()
    assert wait(transports["http"], asked).state is OperationState.CANCELLED
    books.compare(exact=True)
    books.acting(transports, observe)
    for transport in transports.values():
        transport.close()
    machine.kill()
    assert "Traceback" not in launcher.log()
    record_property("tried", len(ledger.asks))
    record_property("refused", unanswered)


def _until_refused(transport: Transport, session: str) -> int:
    """Large batches until there is no room; how many there was room for."""
    for number in range(3 * DISK_BYTES // (50 * BIG_STEPS)):
        try:
            transport.submit_transitions(session, batch(BIG_STEPS, episode=1 + number), f"big {number}", CALL_S)
        except Unavailable as error:
            if error.reason != "STORAGE_UNAVAILABLE" or not error.problem.retry_after_s:
                raise
            return number
    raise AssertionError("there is always room")


def _connect(machine: Machine) -> dict[str, Transport]:
    assert machine.at is not None
    return {kind: connect(machine.at, kind) for kind in ("http", "grpc")}
