"""A real server in its own process, on free ports, stopped and killed as an operator or a power cut would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stores import found_rows, reading

STOP_WITHIN_S = 30.0


@dataclass(frozen=True)
class Reached:
    """Where a server listens."""

    http: str
    grpc: str


class Server:
    """Runs from construction to `stop` or `kill`."""

    def __init__(
        self, checkpoints: Path, data: Path, *flags: str, store_url: str | None = None, name: str = ""
    ) -> None:
        """`name` tells apart those that share a data folder."""
        self.data = data
        self.store_url = store_url
        self._address_file = data.with_name(f"{data.name}{name}.addresses.json")
        self._address_file.unlink(missing_ok=True)
        self._log = data.with_name(f"{data.name}{name}.log").open("ab")
        command = [sys.executable, "-m", "mier_service", "--checkpoints", str(checkpoints), "--data", str(data)]
        command += ["--http-port", "0", "--grpc-port", "0", "--address-file", str(self._address_file), *flags]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MIER_STORE_URL": store_url or ""},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line.startswith("mier-serve is ready"):
            self._end()
            raise AssertionError(f"the server did not start: {self.log()[-4000:]}")
        addresses = json.loads(self._address_file.read_text())
        self.http: str = addresses["http"]
        self.grpc: str = addresses["grpc"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What its store holds now; a question mark in the query for each value."""
        with reading(self.data, self.store_url) as c:
            return found_rows(c, query, *values)

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def kill(self) -> None:
        """SIGKILL to the server and its workers at once, as if power was lost."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._end()

    def wait(self) -> int:
        """For its end, by whatever was sent to it; the exit status."""
        return self._end()

    def _end(self) -> int:
        status = self._process.wait(STOP_WITHIN_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
        return status


@contextmanager
def serving(checkpoints: Path, data: Path, *flags: str, store_url: str | None = None) -> Iterator[Server]:
    """A server of a test's own, stopped in good order when the block ends, killed if it fails."""
    server = Server(checkpoints, data, *flags, store_url=store_url)
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    assert server.stop() == 0
    assert "Traceback" not in server.log()
