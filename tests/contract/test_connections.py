"""More connections than may be open: who asks is told so, probes are answered, and places come back."""

from __future__ import annotations

import json
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from mier_client.http_transport import HttpTransport
from mier_service.errors import Reason
from tests.contract import peers
from tests.contract.conftest import REWARD
from tests.contract.helpers import CALL_S
from tests.contract.refusals import Refusal, of_problem
from tests.contract.server import Server, serving

MOST = 4
ASK = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
SILENT = 200
FEW_FILES = 400


@pytest.fixture(scope="module")
def narrow(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--max-connections", str(MOST), "--finetune-workers", "0")
    with serving(checkpoints, tmp_path_factory.mktemp("narrow") / "data", *flags) as running:
        yield running


@pytest.fixture
def full(narrow: Server) -> Iterator[list[socket.socket]]:
    """As many connections over HTTP as there may be, each of which has asked for something."""
    with ExitStack() as held:
        yield [held.enter_context(asked(narrow)) for _ in range(MOST)]
    peers.wait_for(lambda: peers.counted(narrow, "mier_http_connections ") <= 1)


def asked(server: Server) -> socket.socket:
    peer = peers.connect(server.http)
    peer.sendall(ASK)
    assert peer.recv(1 << 16).startswith(b"HTTP/1.1 200")
    return peer


def get(server: Server, path: str) -> httpx.Response:
    """Over a connection of its own."""
    return httpx.get(f"{server.http}{path}", trust_env=False, timeout=CALL_S)


def refusal(server: Server) -> Refusal:
    told = get(server, "/sessions")
    assert told.headers["Connection"] == "close"
    return of_problem(told.status_code, told.headers, told.json())


def test_who_comes_beyond_is_told_so_and_probes_are_answered(narrow: Server, full: list[socket.socket]) -> None:
    told = refusal(narrow)
    assert (told.reason, told.retry_after_s) == (Reason.OVERLOADED, 1)
    assert "--max-connections" in told.detail
    for path in ("/livez", "/readyz", "/v1/healthz", "/metrics", "/v2/health/ready"):
        answered = get(narrow, path)
        assert (answered.status_code, answered.headers["Connection"]) == (200, "close"), path
    assert peers.counted(narrow, "mier_http_connections_limit") == MOST
    assert peers.counted(narrow, "mier_http_connections_refused_total") > 0
    full[0].sendall(ASK)
    assert full[0].recv(1 << 16).startswith(b"HTTP/1.1 200")  # who is in stays in
    full[0].close()
    peers.wait_for(lambda: get(narrow, "/sessions").status_code == 200)


def test_robots_by_websocket_are_told_so_too(narrow: Server, full: list[socket.socket]) -> None:
    with pytest.raises(InvalidStatus) as told, connect(narrow.http.replace("http", "ws", 1), proxy=None):
        pass
    response = told.value.response
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert json.loads(response.body or b"")["reason"] == "OVERLOADED"


def test_a_robot_by_websocket_has_a_place(narrow: Server) -> None:
    """And gives it back."""
    with closing(HttpTransport(narrow.http)) as http:
        session = http.create_session(REWARD, 7, None, "", CALL_S)
    address = f"{narrow.http.replace('http', 'ws', 1)}/sessions/{session.id}/openpi"
    peers.wait_for(lambda: peers.counted(narrow, "mier_http_connections ") == 1)
    for _ in range(2):
        with ExitStack() as robots:
            for _ in range(MOST):
                robots.enter_context(connect(address, compression=None, proxy=None))
            assert refusal(narrow).reason is Reason.OVERLOADED
        peers.wait_for(lambda: get(narrow, "/sessions").status_code == 200)


def test_a_probe_gets_past_any_number_that_say_nothing(narrow: Server, full: list[socket.socket]) -> None:
    """Without an end of them, or the oldest ended for the newest, either the service is out of file descriptors or
    nobody knows whether it lives."""
    before = len(os.listdir(f"/proc/{narrow.pid}/fd"))
    with ExitStack() as held:
        for _ in range(SILENT):
            held.enter_context(peers.connect(narrow.http))
        assert get(narrow, "/livez").status_code == 200
        assert len(os.listdir(f"/proc/{narrow.pid}/fd")) - before < SILENT // 2
        assert refusal(narrow).reason is Reason.OVERLOADED


@contextmanager
def open_files(most: int) -> Iterator[None]:
    """So many may be open in what is started, unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_never_begins_tls_is_counted(checkpoints: Path, tmp_path: Path) -> None:
    """Nor is there a file too few, where the machine allows more of them."""
    authority, issued = trustme.CA(), tmp_path / "issued.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(issued)
    flags = ("--max-connections", str(MOST), "--finetune-workers", "0")
    tls = ("--tls-cert", str(issued), "--tls-key", str(issued))
    with (
        open_files(FEW_FILES),
        serving(checkpoints, tmp_path / "data", *flags, *tls) as server,
        ExitStack() as held,
    ):
        before = len(os.listdir(f"/proc/{server.pid}/fd"))
        for _ in range(SILENT):
            held.enter_context(peers.connect(server.http.replace("https", "http")))
        trusted = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        limits = Path(f"/proc/{server.pid}/limits").read_text().splitlines()
        (files,) = (line for line in limits if line.startswith("Max open files"))
        assert int(files.split()[3]) == 2 * MOST + 512
        assert httpx.get(f"{server.http}/livez", verify=trusted, trust_env=False, timeout=CALL_S).status_code == 200
        assert len(os.listdir(f"/proc/{server.pid}/fd")) - before < SILENT // 2


def test_over_grpc_too(narrow: Server) -> None:
    """gRPC ends a connection beyond them without a word; the client takes it for a service that cannot be reached."""
    own = [("grpc.use_local_subchannel_pool", 1)]  # or all of a process share one connection
    with ExitStack() as held:
        channels = [held.enter_context(grpc.insecure_channel(narrow.grpc, own)) for _ in range(MOST)]
        for channel in channels:
            HealthStub(channel).Check(HealthCheckRequest(), timeout=CALL_S)
        with peers.connect(narrow.grpc) as beyond:
            assert peers.until_ended(beyond) == b""
        assert get(narrow, "/readyz").status_code == 200
        for channel in channels:
            HealthStub(channel).Check(HealthCheckRequest(), timeout=CALL_S)
        channels[0].close()
        with grpc.insecure_channel(narrow.grpc, own) as later:
            HealthStub(later).Check(HealthCheckRequest(), timeout=CALL_S, wait_for_ready=True)
