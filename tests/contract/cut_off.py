"""A service and its watcher in a network of their own, which is then switched off: `python -m tests.contract.cut_off`.

Run by `test_slow_peers_http` in a new network namespace. The status is 0 if the service ends the connection.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from tests.contract import peers, tiny
from tests.contract.conftest import REWARD
from tests.contract.server import serving


def main(checkpoints: Path, data: Path) -> None:
    _network("up")
    with serving(checkpoints, data, "--peer-within-s", "2", "--finetune-workers", "0") as server:
        with httpx.Client(base_url=server.http, trust_env=False, timeout=30.0) as http:
            session = http.post("/sessions", json={"checkpoint": REWARD}).json()["id"]
            rows = {name: array.tolist() for name, array in tiny.arrays(40, 3).items()}
            steps = {"session_id": session, "episode": 0, "first_step": 0, "policy_version": 1, **rows}
            assert http.post("/transitions", json=steps).status_code == 200
            operation = http.post("/finetune", json={"session_id": session}).json()["id"]
        with peers.connect(server.http) as watcher:
            watcher.sendall(f"GET /operations/{operation}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert watcher.recv(1)
            own_port = watcher.getsockname()[1]
            assert _held(own_port)
            _network("down")
            peers.wait_for(lambda: not _held(own_port))
        _network("up")


def _network(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def _held(peer_port: int) -> bool:
    """Whether anybody here has a connection to that port of the peer."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(int(row[2].rpartition(":")[2], 16) == peer_port for row in rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
