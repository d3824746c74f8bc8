"""One cycle: a server and a worker, traffic, SIGKILL, the next server, and the books compared."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mier_client.transport import Transport
from mier_service.config import STORE_URL_VARIABLE, WorkerConfig
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, batch
from tests.contract.server import Reached
from tests.promises.kill_points import Armed
from tests.promises.launcher import START_WITHIN_S, Launcher, Process
from tests.promises.ledger import Ask, Books, Ledger
from tests.promises.robots import SECOND, Robot, observe
from tests.promises.write_paths import SERVER, WORKER

FLAGS = (
    "--finetune-workers",
    "0",
    "--sweep-every-s",
    "0.1",
    "--poll-every-s",
    "0.05",
    "--log-level",
    "WARNING",
    "--check-every-s",
    "0.1",
)
LEASE_S, SAVE_EVERY_S = 0.6, 0.02
END_WITHIN_S = 60.0
LIVES = 6
"""Sessions of one robot in one cycle, at most."""


@dataclass
class Machine:
    """A data folder, and the processes that are at work on it."""

    launcher: Launcher
    checkpoints: Path
    data: Path
    flags: tuple[str, ...] = FLAGS
    store_url: str | None = None
    name: str = ""
    """Tells apart those that share a data folder."""
    server: Process | None = None
    worker: Process | None = None
    at: Reached | None = None

    def armed(self, point: str, times: int, group: bool) -> Armed:
        return Armed(point, times, group, trigger=str(self._file("trigger")), note=str(self._file("note")))

    def start(self, armed: Armed | None = None) -> bool:
        """A server; False if it ended before it was ready."""
        addresses = self._file("addresses.json")
        arguments = ["--checkpoints", str(self.checkpoints), "--data", str(self.data), "--http-port", "0"]
        arguments += ["--grpc-port", "0", "--address-file", str(addresses), *self.flags]
        self._file("note").unlink(missing_ok=True)
        self.server = self.launcher.server(arguments, armed, self._environment())
        if not self.server.output.readline().startswith(b"mier-serve is ready"):
            self.end()
            return False
        self.at = Reached(**json.loads(addresses.read_text()))
        return True

    def start_worker(self, armed: Armed | None = None) -> None:
        assert self.server is not None
        config = WorkerConfig(
            data=self.data,
            checkpoints=self.checkpoints,
            save_every_s=SAVE_EVERY_S,
            lease_s=LEASE_S,
            log_level="WARNING",
        )
        self.worker = self.launcher.worker(config.model_dump_json(), self.server.pid, armed, self._environment())

    def wake(self) -> None:
        """Tells the worker that something may wait for it, as the service does with workers of its own."""
        if self.worker is not None:
            with contextlib.suppress(BrokenPipeError):
                self.worker.lifeline.write(b"wake\n")

    def arm(self) -> None:
        """From here on what the processes were armed with counts."""
        self._file("trigger").touch()

    def kill(self) -> None:
        """SIGKILL to both at once, as if power was lost."""
        for process in (self.server, self.worker):
            if process is not None:
                process.signal(signal.SIGKILL)
        self.end()

    def kill_worker(self) -> None:
        """SIGKILL to it alone, if there is one."""
        if self.worker is not None:
            self.worker.signal(signal.SIGKILL)
            assert self.worker.ended(START_WITHIN_S), "it does not end"
            self.launcher.reap(self.worker)
            self.worker = None

    def end(self) -> None:
        """Waits for both to be gone."""
        for process in (self.worker, self.server):
            if process is not None:
                assert process.ended(START_WITHIN_S), "it does not end"
                self.launcher.reap(process)
        self.server = self.worker = None
        self._file("trigger").unlink(missing_ok=True)

    def killed_itself(self) -> bool:
        """Whether the moment that a process was armed with was reached."""
        return self._file("note").exists()

    def _environment(self) -> dict[str, str]:
        return {STORE_URL_VARIABLE: self.store_url or ""}

    def _file(self, name: str) -> Path:
        return self.data.with_name(f"{self.data.name}{self.name}.{name}")


@dataclass
class Scene:
    """How one cycle ends: at a named moment of a process, or (point empty) after so many acknowledgements."""

    process: str
    point: str
    times: int
    group: bool
    after: int


def scenes(points: dict[str, list[str]], moments: int, seed: int) -> list[Scene]:
    """Every named moment once, and `moments` random ones; in random order."""
    generator = random.Random(seed)
    found = [
        Scene(process, point, generator.choice((1, 1, 2, 3)), process == SERVER or generator.random() < 0.5, 0)
        for process, names in points.items()
        for point in names
    ]
    found += [Scene(SERVER, "", 0, True, generator.randint(1, 60)) for _ in range(moments)]
    generator.shuffle(found)
    return found


@dataclass
class Run:
    """Many cycles on one data folder."""

    machine: Machine
    ledger: Ledger
    seed: int
    tally: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    missed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._robots = {over: Robot(self.ledger, over, self.seed * 10 + i) for i, over in enumerate(("http", "grpc"))}
        self._books = Books(self.ledger, self.machine.data)

    def prepare(self) -> None:
        """A first server makes the store, with a session that keeps the checkpoints' policies in it."""
        self._start(None, None)
        transports = self._connect()
        for name in (REWARD, SECOND):
            session = transports["http"].create_session(name, 0, None, "", CALL_S)
            transports["http"].submit_transitions(session.id, batch(25), "", CALL_S)
        self._close(transports)
        self.machine.kill()

    def cycle(self, scene: Scene) -> None:
        """Start, settle what the last cycle left open, compare, traffic, kill."""
        machine = self.machine
        armed = machine.armed(scene.point, scene.times, scene.group) if scene.point else None
        at_start = scene.point.endswith("storage.Storage.prepare")
        if at_start:
            machine.arm()
            assert armed is not None
            armed = machine.armed(scene.point, 1, True)
        if not self._start(armed if scene.process == SERVER else None, armed if scene.process == WORKER else None):
            assert at_start, f"the server did not start (armed: {scene.point})"
            self._note(scene)
            return
        transports = self._connect()
        try:
            self._check(transports)
            machine.arm()
            self._traffic(transports, scene)
        finally:
            machine.kill()
            self._close(transports)
        self._note(scene)

    def finish(self) -> None:
        """The last comparison."""
        self._start(None, None)
        transports = self._connect()
        self._check(transports)
        self._close(transports)
        self.machine.kill()

    def _check(self, transports: dict[str, Transport]) -> None:
        self._books.compare(exact=False)
        self.ledger.settle(transports)
        self.ledger.repeat(transports, 6)
        for session, operation in self._books.long_operations():
            ask = self.ledger.add(Ask("cancel_operation", session, (operation,), over="http"))
            ask.run(transports["http"])
            self.ledger.acknowledged(ask)
        self._books.compare(exact=True)
        self._books.acting(transports, observe)

    def _traffic(self, transports: dict[str, Transport], scene: Scene) -> None:
        stop = threading.Event()
        threads = [
            threading.Thread(target=robot.live, args=(transports[over], LIVES, stop))
            for over, robot in self._robots.items()
        ]
        for thread in threads:
            thread.start()
        before = self.ledger.tally["acknowledged"]
        armed = self.machine.worker if scene.process == WORKER else self.machine.server
        assert armed is not None

        def over() -> bool:
            count = self.ledger.tally["acknowledged"] - before
            if not scene.point:
                return count >= scene.after or not any(thread.is_alive() for thread in threads)
            return armed.ended(0) or not any(thread.is_alive() for thread in threads)

        with self.ledger.changed:
            while not over():
                self.ledger.changed.wait(0.05)
                self.machine.wake()
        if scene.process == WORKER and not scene.group and armed.ended(0):
            # Only the worker was killed: another one takes over, and the robots go on.
            self.machine.launcher.reap(armed)
            self.machine.start_worker()
            with self.ledger.changed:
                target = self.ledger.tally["acknowledged"] + 8
                self.ledger.changed.wait_for(
                    lambda: (
                        self.ledger.tally["acknowledged"] >= target or not any(thread.is_alive() for thread in threads)
                    ),
                    END_WITHIN_S,
                )
        stop.set()
        self._kill_now()
        for thread in threads:
            thread.join(END_WITHIN_S)
            assert not thread.is_alive(), "a robot hangs"
        for robot in self._robots.values():
            if robot.fault is not None:
                raise AssertionError(f"a robot met what it should not: {robot.fault!r}") from robot.fault

    def _kill_now(self) -> None:
        for process in (self.machine.server, self.machine.worker):
            if process is not None:
                process.signal(signal.SIGKILL)

    def _note(self, scene: Scene) -> None:
        self.tally["cycles"] += 1
        if scene.point:
            if self.machine.killed_itself():
                self.tally["named"] += 1
                self.reached.add(scene.point)
            else:
                self.missed.append(scene.point)
        else:
            self.tally["random"] += 1

    def _start(self, server: Armed | None, worker: Armed | None) -> bool:
        if not self.machine.start(server):
            return False
        self.machine.start_worker(worker)
        return True

    def _connect(self) -> dict[str, Transport]:
        assert self.machine.at is not None
        return {kind: connect(self.machine.at, kind) for kind in ("http", "grpc")}

    def _close(self, transports: dict[str, Transport]) -> None:
        for transport in transports.values():
            transport.close()
