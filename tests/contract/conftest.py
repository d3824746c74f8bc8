"""One server and one set of tiny checkpoints for the whole suite; each test has a session of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mier.ood import OodReference
from mier.types import Varies
from mier_client.grpc_transport import GrpcTransport
from mier_client.http_transport import HttpTransport
from mier_client.transport import Transport
from mier_client.values import Session
from mier_service.access.keys import Scope
from tests.contract import tiny
from tests.contract.browsing import Site
from tests.contract.fuzzed import CHECKPOINT, Fuzzed
from tests.contract.keys import make_key, migrate
from tests.contract.server import Reached, Server, serving

REWARD, DYNAMICS = "tiny-reward", "tiny-dynamics"
OOD = OodReference(tuple(0.25 * i for i in range(1, 40)), tuple(float(10 * i) for i in range(1, 40)))
"""What the tasks that `REWARD` was trained on would show."""
MAX_BODY_BYTES = 256 * 1024
STORES = ("sqlite", "postgresql")
ON_BOTH_STORES = {"test_idempotency", "test_lineage", "test_read_back", "test_sessions", "test_transitions"}
HTTP_PLACES, GRPC_PLACES, OPENPI_PLACES = 8, 4, 2
"""Of the impatient server."""


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny.write(folder, REWARD, Varies.REWARD, seed=0, ood=OOD)
    tiny.write(folder, DYNAMICS, Varies.DYNAMICS, seed=1)
    return folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What the store has the greatest part in is asked of a service on either database. One server for each: pytest
    runs all the tests of one before those of the other."""
    if "server" in metafunc.fixturenames and not hasattr(metafunc.module, "server"):
        both = metafunc.module.__name__.rpartition(".")[2] in ON_BOTH_STORES
        metafunc.parametrize("server", STORES if both else STORES[:1], indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("service") / "data"
    url = None if request.param == STORES[0] else request.getfixturevalue("postgres").new_store()
    running = Server(
        checkpoints,
        data,
        "--max-body-bytes",
        str(MAX_BODY_BYTES),
        "--finetune-save-every-s",
        "0.2",
        "--grpc-reflection",
        store_url=url,
    )
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log()


@pytest.fixture(scope="session")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzzed")
    tiny.write(folder / "checkpoints", CHECKPOINT, Varies.DYNAMICS, seed=1, observation_std=0.01)
    running = Fuzzed(folder / "checkpoints", folder / "data")
    yield running
    running.stop()


@pytest.fixture(scope="session")
async def one_event_loop() -> None:
    """For all tests with an awaited client: gRPC tells one loop of a process of what was under way in a closed one."""


@pytest.fixture(scope="session")
def impatient(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Waits for nobody for long, and has few places for calls. Nobody fine-tunes, so that operations only wait."""
    flags = ["--peer-within-s", "2", "--finetune-workers", "0"]
    flags += ["--max-http-requests", str(HTTP_PLACES), "--max-grpc-calls", str(GRPC_PLACES)]
    flags += ["--max-openpi-connections", str(OPENPI_PLACES)]
    with serving(checkpoints, tmp_path_factory.mktemp("impatient") / "data", *flags) as running:
        yield running
        assert "request_failed" not in running.log()


@pytest.fixture(scope="session")
def site(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Asks for keys, also of those who come with a browser."""
    data = tmp_path_factory.mktemp("site") / "data"
    migrate(data)
    keys = {scope: make_key(data, scope) for scope in Scope}
    with serving(checkpoints, data, "--keys", "required") as running:
        yield Site(running, keys)
        assert "request_failed" not in running.log()


@pytest.fixture(scope="session")
def forgetful(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Keeps nothing for long on which nothing happens. Nobody fine-tunes here, either."""
    flags = ("--keep-idle-connections-s", "2", "--finetune-workers", "0")
    with serving(checkpoints, tmp_path_factory.mktemp("forgetful") / "data", *flags) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, server: Server) -> Iterator[Transport]:
    """Every test that takes it runs over both."""
    made = connect(server, request.param)
    yield made
    made.close()


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """Without any client of ours."""
    with httpx.Client(base_url=server.http, timeout=30.0, trust_env=False) as client:
        yield client


@pytest.fixture
def session(transport: Transport) -> Session:
    return transport.create_session(REWARD, 7, None, "", 30.0)


def connect(server: Server | Reached, kind: str, key: str | None = None) -> Transport:
    return HttpTransport(server.http, None, key) if kind == "http" else GrpcTransport(server.grpc, None, key)
