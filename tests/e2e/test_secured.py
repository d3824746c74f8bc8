"""`mier-eval` against a service that asks for a key and speaks TLS, as over a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from mier_client import Client, Tls
from mier_service.access.keys import Scope
from tests.contract.keys import make_key, migrate
from tests.contract.server import Server
from tests.e2e.conftest import CHECKPOINTS


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_an_evaluation_over_tls_with_a_key(tmp_path: Path, transport: str) -> None:
    """Broken on purpose: `run` connecting without the key, and without the files; the key as an argument, shown in
    the results."""
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    migrate(tmp_path / "data")
    key = make_key(tmp_path / "data", Scope.ADMIN)
    (tmp_path / "key").write_text(f"{key}\n")
    secured = ["--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")]
    server = Server(CHECKPOINTS, tmp_path / "data", "--keys", "required", *secured)
    address = server.grpc if transport == "grpc" else server.http.removeprefix("https://")
    command = [sys.executable, "-m", "mier_mujoco", "--server", address, "--transport", transport, "--targets", "1.5"]
    command += ["--episodes", "1", "--updates", "5", "--out", str(tmp_path / "out"), "--json"]
    command += ["--api-key-file", str(tmp_path / "key"), "--tls-ca", str(tmp_path / "ca.pem")]
    environment = {name: value for name, value in os.environ.items() if name != "MIER_API_KEY"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["task"] == "1.5 m/s"
    written = done.stdout + done.stderr + "".join(path.read_text() for path in (tmp_path / "out").glob("*.json"))
    assert key not in written
    with Client.connect(server.http, api_key=key, tls=Tls(tmp_path / "ca.pem")) as client:
        assert list(client.list_sessions()) == []
    assert server.stop() == 0
    assert key not in server.log()
