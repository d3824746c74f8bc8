"""A server as a process of its own, on another core than its client; and the processor time that it takes.

Invariants
- It leads a session of its own, and all of that ends with it: some servers leave children behind.
- It is ready once it has printed the port that it listens on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

_STOP_S = 20.0
_PROC = Path("/proc")


class Server:
    """Runs from construction to `stop`."""

    def __init__(
        self, command: Sequence[str], ready: str = "port ", environment: Mapping[str, str] | None = None
    ) -> None:
        """`ready` begins the line that says that it serves. RuntimeError, with the end of its log, if none comes."""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        core = _core_beside()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if core is not None else None,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.decode(errors="replace").startswith(ready):
                self.line = line.decode().strip()
                return
        self.stop()
        raise RuntimeError(f"{' '.join(command)} did not begin to serve:\n{self.tail}")

    @property
    def port(self) -> int:
        """Of a server that printed it."""
        return int(self.line.rpartition(" ")[2])

    def cpu_s(self) -> float:
        """Processor time of the process, its threads and its children, so far."""
        return 1e-9 * sum(_ran_ns(pid) for pid in _tree(self._process.pid))

    def stop(self) -> None:
        """By SIGINT, as from a terminal; what is left of its session is killed."""
        known = _tree(self._process.pid)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        for pid in {*known, *_session(self._process.pid)} - {self._process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.seek(0)
        self.tail = self._log.read()[-2000:].decode(errors="replace")
        self._log.close()


def busy_clock(server: Server) -> Callable[[], float]:
    """Processor time of this process and of the server."""
    return lambda: time.process_time() + server.cpu_s()


@contextlib.contextmanager
def serving(
    command: Sequence[str], ready: str = "port ", environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server = Server(command, ready, environment)
    try:
        yield server
    finally:
        server.stop()


def _core_beside() -> int | None:
    """A core that is not the one that this process is kept to; None where it is kept to none, or there is no other."""
    if not hasattr(os, "sched_getaffinity") or len(own := os.sched_getaffinity(0)) > 1:
        return None
    return next((core for core in range(os.cpu_count() or 1) if core not in own), None)


def _ran_ns(pid: int) -> int:
    """Of all its threads; 0 once it is gone."""
    total = 0
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def _tree(root: int) -> list[int]:
    """The process and its descendants."""
    parents = {pid: int(fields[1]) for pid, fields in _stats()}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _session(leader: int) -> list[int]:
    return [pid for pid, fields in _stats() if int(fields[3]) == leader]


def _stats() -> Iterator[tuple[int, list[str]]]:
    """State, parent, group, session, ... of each process."""
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(folder.name), (folder / "stat").read_text().rpartition(")")[2].split()
