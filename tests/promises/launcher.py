"""Servers and workers that start fast: forked from a process that has loaded torch already.

What runs is the service's own `main`, in a process of its own, with the kill points wrapped around its writes. One
`Launcher` serves a whole run; it is a process apart, which loads modules and starts no thread, so that it can fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.promises.kill_points import Armed, install

START_WITHIN_S = 120.0
_PR_SET_PDEATHSIG = 1


@dataclass
class Process:
    """A server or a worker."""

    pid: int
    descriptor: int
    """Becomes readable when it ends."""
    lifeline: IO[bytes]
    """Its standard input."""
    output: IO[bytes]

    def ended(self, within_s: float) -> bool:
        poller = select.poll()
        poller.register(self.descriptor, select.POLLIN)
        return bool(poller.poll(1000 * within_s))

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)


class Launcher:
    """Starts processes; ends with the `with` block, and they with it."""

    def __init__(self, log: Path) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.promises.launcher", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GRPC_ENABLE_FORK_SUPPORT": "0"},
        )
        theirs.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[Launcher]:
        try:
            yield self
        finally:
            self._socket.close()
            self._process.wait(START_WITHIN_S)
            self._log.close()

    def log(self) -> str:
        """What they all wrote to standard error."""
        return Path(self._log.name).read_text()

    def server(self, arguments: list[str], armed: Armed | None, environment: dict[str, str]) -> Process:
        order = {"role": "server", "arguments": arguments, "group": 0, "environment": environment}
        return self._start(order, armed)

    def worker(self, config_json: str, group: int, armed: Armed | None, environment: dict[str, str]) -> Process:
        order = {"role": "worker", "arguments": [config_json], "group": group, "environment": environment}
        return self._start(order, armed)

    def reap(self, process: Process) -> int:
        """Its exit status, negative for a signal, once it has ended."""
        os.close(process.descriptor)
        process.lifeline.close()
        process.output.close()
        status = self._ask({"reap": process.pid})
        return os.waitstatus_to_exitcode(int(status))

    def _start(self, order: dict[str, Any], armed: Armed | None) -> Process:
        order["armed"] = armed.to_json() if armed else None
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        pid = int(self._ask(order, [in_read, out_write, self._log.fileno()]))
        os.close(in_read)
        os.close(out_write)
        return Process(pid, os.pidfd_open(pid), os.fdopen(in_write, "wb", 0), os.fdopen(out_read, "rb"))

    def _ask(self, order: dict[str, Any], descriptors: list[int] | None = None) -> str:
        socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors or [])
        return self._socket.recv(100).decode()


def _serve_orders(orders: socket.socket) -> None:
    # What a server and a worker load, so that their forks need not.
    import mier_service.bootstrap
    import mier_service.learning.worker  # noqa: F401

    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, 1 << 16, 3)
        if not data:
            return
        order = json.loads(data)
        if "reap" in order:
            _, status = os.waitpid(order["reap"], 0)
            orders.send(str(status).encode())
            continue
        pid = os.fork()
        if pid == 0:
            orders.close()
            _become(order, descriptors)
        with contextlib.suppress(OSError):  # the child may have done it
            os.setpgid(pid, order["group"])
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(str(pid).encode())


def _become(order: dict[str, Any], descriptors: list[int]) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, order["group"])
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.update(order["environment"])
    code = 1
    try:
        if order["armed"]:
            install(Armed.of_json(order["armed"]))
        if order["role"] == "server":
            from mier_service.__main__ import main

            main(order["arguments"])
        else:
            from mier_service.learning.worker import main as work

            sys.argv[1:] = order["arguments"]
            work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve_orders(socket.socket(fileno=int(sys.argv[1])))
