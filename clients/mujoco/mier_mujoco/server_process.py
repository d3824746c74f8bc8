"""A service of one's own, for the length of a demo: started on free ports, waited for, and gone at the end.

Invariants
- It runs in a process group of its own, so that its workers end with it, whatever happens.
- Leaving the block, by any way, first asks it to stop (SIGTERM: drain, save, exit), then insists.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mier_client import Client, MierError

_STOP_S = 20.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Address:
    """Where the service listens."""

    grpc: str
    http: str


@contextmanager
def running_server(arguments: Sequence[str], *, ready_within_s: float) -> Iterator[Address]:
    """`mier-serve` with these further arguments, ready; its state lies in a temporary folder and is deleted.

    RuntimeError, with the end of the service's log, if it does not get ready.
    """
    with tempfile.TemporaryDirectory(prefix="mier-") as folder:
        address_file, log_path = Path(folder, "address.json"), Path(folder, "server.log")
        command = [
            *(sys.executable, "-m", "mier_service"),
            *("--http-port", "0", "--grpc-port", "0"),
            *("--data", str(Path(folder, "data")), "--address-file", str(address_file)),
            *arguments,
        ]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            yield _wait_until_ready(process, address_file, log_path, ready_within_s)
        finally:
            _stop(process)


def _wait_until_ready(
    process: subprocess.Popen[bytes], address_file: Path, log_path: Path, ready_within_s: float
) -> Address:
    deadline = time.monotonic() + ready_within_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with code {process.returncode}:\n{_tail(log_path)}")
        address = _read_address(address_file)
        if address is not None and _is_ready(address):
            return address
        time.sleep(_POLL_S)
    raise RuntimeError(f"the service was not ready within {ready_within_s:g} s:\n{_tail(log_path)}")


def _read_address(path: Path) -> Address | None:
    """None while the file is not there, or not yet whole."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return Address(grpc=value["grpc"], http=value["http"])


def _is_ready(address: Address) -> bool:
    try:
        with Client.connect(address.http) as client:
            return client.ready(timeout_s=2.0)
    except MierError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        # Workers outlive a service that was killed; the group holds nobody else.
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _tail(log_path: Path, lines: int = 30) -> str:
    return "\n".join(log_path.read_text(errors="replace").splitlines()[-lines:])
