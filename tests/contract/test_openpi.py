"""openpi's own client from PyPI against a real service, and what no client of openpi would send."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mier_client.http_transport import HttpTransport
from mier_client.transport import ActQuery
from mier_client.values import Session
from mier_service.access.keys import Scope
from tests.contract import tiny
from tests.contract.conftest import MAX_BODY_BYTES, REWARD
from tests.contract.helpers import CALL_S, MEAN, OBSERVATION
from tests.contract.keys import make_key, migrate, revoke, wait_until
from tests.contract.server import Server, serving

HERE = Path(__file__).parent / "openpi_client"


@pytest.fixture(scope="session")
def openpi() -> Path:
    """Python of a virtual environment with openpi's client, beside the packages of this one; made once."""
    folder = Path(sys.prefix) / "openpi-client"
    requirements, python, made = HERE / "requirements.txt", folder / "bin" / "python", folder / "made-of.txt"
    with (Path(sys.prefix) / "openpi-client.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.read_text() != requirements.read_text():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            # Without dependencies: the list is whole, and openpi-client asks for an older NumPy than some Pythons have.
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--requirement", str(requirements)], check=True)
            made.write_text(requirements.read_text())
    return python


Robot = Callable[..., Any]


@pytest.fixture
def robot(openpi: Path) -> Robot:
    def run(connect: Mapping[str, Any], observations: list[dict[str, Any]], chunk: list[Any] | None = None) -> Any:
        told = {"connect": connect, "observations": observations, "chunk": chunk or []}
        finished = subprocess.run(
            [str(openpi), "-I", str(HERE / "robot.py")],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=CALL_S,
            check=False,
        )
        if finished.returncode:
            raise AssertionError(finished.stderr)
        return json.loads(finished.stdout)

    return run


@pytest.fixture
def http(server: Server) -> Iterator[HttpTransport]:
    made = HttpTransport(server.http)
    yield made
    made.close()


@pytest.fixture
def session(http: HttpTransport) -> Session:
    return http.create_session(REWARD, 7, None, "", CALL_S)


def url(server: Server, session: Session) -> str:
    return f"{server.http.replace('http', 'ws', 1)}/v1/sessions/{session.id}/openpi"


def port(server: Server) -> int:
    return int(server.http.rpartition(":")[2])


@contextmanager
def opened(url: str, key: str | None = None) -> Iterator[ClientConnection]:
    """A connection whose first frame has been read."""
    headers = {"Authorization": f"Api-Key {key}"} if key else None
    with connect(url, compression=None, max_size=None, additional_headers=headers, proxy=None) as connection:
        assert msgpack.unpackb(connection.recv(CALL_S))["service"] == "mier"
        yield connection


def packed(values: np.ndarray) -> dict[bytes, Any]:
    return {
        b"__ndarray__": True,
        b"data": values.tobytes(),
        b"dtype": values.dtype.str,
        b"shape": values.shape,
    }


def test_openpis_own_client_acts_as_any_other(
    robot: Robot, server: Server, session: Session, http: HttpTransport
) -> None:
    """Its arrays, its chunks, an observation with a picture and a prompt; exploring, where it asks for that."""
    observations = np.random.default_rng(0).standard_normal((3, tiny.OBSERVATION_DIM)).astype(np.float32)
    asked = [
        {"observation": observations[0].tolist()},
        {"observation": observations[1].tolist(), "image": [224, 224, 3], "prompt": "walk"},
        {"observation": observations[2].tolist(), "deterministic": False, "episode": 1, "step": 2},
    ]
    found = robot({"host": url(server, session)}, asked, [observations[0].tolist()])
    assert found["metadata"] == {"service": "mier", "session_id": session.id, "checkpoint": REWARD}
    assert found["action_high"] == list(session.environment.action_high)
    queries = [MEAN, MEAN, ActQuery(False, 1, 2)]
    for reply, observation, query in zip(found["replies"], observations, queries, strict=True):
        acted = http.act(session.id, observation, query, CALL_S)
        assert reply["actions"] == [acted.action.tolist()]
        assert reply["dtype"] == "float32"
        assert (reply["policy_version"], reply["weights_hash"]) == (acted.policy_version, acted.weights_hash)
        assert reply["ood_percentile"] == acted.ood_percentile
        assert reply["server_timing"]["infer_ms"] > 0.0
    assert found["chunk"] == [found["replies"][0]["actions"][0]]
    if sys.version_info < (3, 13):
        assert found["numpy"].startswith("1.")


def test_openpis_client_is_told_what_was_wrong(robot: Robot, server: Server, session: Session) -> None:
    found = robot({"host": url(server, session)}, [{"observation": [0.0, 1.0]}])
    assert found["refusal"].startswith("Error in inference server:\nINVALID_ARGUMENT: observation: expected shape [4]")
    assert "Traceback" not in found["refusal"]


@pytest.fixture(scope="module")
def guarded(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("openpi") / "data"
    migrate(data)
    with serving(
        checkpoints, data, "--keys", "required", "--finetune-workers", "0", "--max-openpi-connections", "3"
    ) as s:
        yield s


def test_a_host_a_port_and_a_bound_key_are_enough(robot: Robot, guarded: Server) -> None:
    """All that a robot made for openpi's server knows."""
    admin = make_key(guarded.data, Scope.ADMIN)
    wait_until(guarded.http, admin, good=True)
    operator = HttpTransport(guarded.http, api_key=admin)
    session = operator.create_session(REWARD, 7, None, "", CALL_S)
    key = make_key(guarded.data, Scope.ACT, session=session.id)
    wait_until(guarded.http, key, good=True)
    asked = [{"observation": OBSERVATION.tolist()}]
    found = robot({"host": "127.0.0.1", "port": port(guarded), "api_key": key}, asked)
    acted = operator.act(session.id, OBSERVATION, MEAN, CALL_S)
    assert found["replies"][0]["actions"] == [acted.action.tolist()]
    operator.close()


def test_keys_and_scopes_hold_here_too(guarded: Server) -> None:
    """Broken on purpose: `_admit` without `enter` and `get` without `require`; seen: who has no key was let in."""
    admin = make_key(guarded.data, Scope.ADMIN)
    wait_until(guarded.http, admin, good=True)
    operator = HttpTransport(guarded.http, api_key=admin)
    mine, other = (operator.create_session(REWARD, 7, None, "", CALL_S) for _ in range(2))
    bound = make_key(guarded.data, Scope.ACT, session=mine.id)
    wait_until(guarded.http, bound, good=True)
    home = guarded.http.replace("http", "ws", 1)

    def refused(where: str, key: str | None) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as told, opened(where, key):
            pass
        response = told.value.response
        assert response.headers["Content-Type"] == "application/problem+json"
        body = json.loads(response.body or b"")
        assert body["request_id"] == response.headers["X-Request-Id"]
        return response.status_code, body["reason"]

    assert refused(url(guarded, mine), None) == (401, "UNAUTHENTICATED")
    assert refused(url(guarded, mine), "letmein") == (401, "UNAUTHENTICATED")
    assert refused(url(guarded, other), bound) == (403, "PERMISSION_DENIED")
    assert refused(f"{home}/", admin) == (422, "INVALID_ARGUMENT")
    assert refused(f"{home}/sessions/nobody/openpi", admin) == (404, "SESSION_NOT_FOUND")
    assert refused(f"{home}/act", admin) == (404, "ROUTE_NOT_FOUND")
    with opened(url(guarded, mine), bound) as robot:
        robot.send(msgpack.packb({"state": packed(OBSERVATION)}))
        assert msgpack.unpackb(robot.recv(CALL_S))["policy_version"] == 1
        revoke(guarded.data, bound)
        wait_until(guarded.http, bound, good=False)
        robot.send(msgpack.packb({"state": packed(OBSERVATION)}))
        assert "UNAUTHENTICATED: the key" in str(robot.recv(CALL_S))
        with pytest.raises(ConnectionClosedError, match="1008"):
            robot.recv(CALL_S)
    operator.close()


def test_connections_are_counted(guarded: Server) -> None:
    admin = make_key(guarded.data, Scope.ADMIN)
    wait_until(guarded.http, admin, good=True)
    operator = HttpTransport(guarded.http, api_key=admin)
    session = operator.create_session(REWARD, 7, None, "", CALL_S)
    with ExitStack() as robots:
        for _ in range(3):
            robots.enter_context(opened(url(guarded, session), admin))
        with pytest.raises(InvalidStatus) as told, opened(url(guarded, session), admin):
            pass
    assert (told.value.response.status_code, told.value.response.headers["Retry-After"]) == (503, "1")
    with opened(url(guarded, session), admin):
        pass
    operator.close()


GOOD = packed(OBSERVATION)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "MALFORMED_REQUEST"),
        (b"\xc1", "MALFORMED_REQUEST"),
        (b"\x81\xa1", "MALFORMED_REQUEST"),
        (b"\x91" * 5000, "MALFORMED_REQUEST"),
        (b"\x81\xa1a\xa1\xff", "MALFORMED_REQUEST"),
        ("text", "MALFORMED_REQUEST: expected a binary frame"),
        ([1, 2], "MALFORMED_REQUEST: expected a msgpack map, got a list"),
        ({}, "INVALID_ARGUMENT: observation: expected one of the entries observation, observation/state, state"),
        ({"observation": GOOD, "state": GOOD}, "INVALID_ARGUMENT: observation: expected one of"),
        ({"observation": GOOD | {b"dtype": "|O"}}, "INVALID_ARGUMENT: expected values as openpi_client packs them"),
        ({"observation": GOOD | {b"dtype": "<f4,<f4"}}, "INVALID_ARGUMENT"),
        ({"observation": GOOD | {b"dtype": 4}}, "INVALID_ARGUMENT"),
        ({"observation": GOOD | {b"dtype": "<b4"}}, "INVALID_ARGUMENT"),
        ({"observation": GOOD | {b"shape": [5]}}, "INVALID_ARGUMENT"),
        ({"observation": GOOD | {b"shape": [2**40, 0]}}, "INVALID_ARGUMENT"),
        ({"observation": GOOD | {b"shape": [1] * 40}}, "INVALID_ARGUMENT"),
        ({"observation": GOOD | {b"data": "four"}}, "INVALID_ARGUMENT"),
        ({"observation": [[1.0], [1.0, 2.0]]}, "INVALID_ARGUMENT"),
        ({"observation": "four"}, "INVALID_ARGUMENT"),
        ({"observation": None}, "INVALID_ARGUMENT"),
        ({"observation": {"__npgeneric__": True, "dtype": "<f4", "data": "x"}}, "INVALID_ARGUMENT"),
        ({"observation": packed(np.full(4, np.nan))}, "INVALID_ARGUMENT: observation: expected finite"),
        ({"observation": packed(np.full(4, 1e300))}, "INVALID_ARGUMENT: observation: expected finite"),
        ({"observation": packed(np.zeros((2, 4)))}, "INVALID_ARGUMENT: observation: expected shape"),
        ({"observation": GOOD, "deterministic": False}, "INVALID_ARGUMENT: an exploring action needs episode and step"),
        ({"observation": GOOD, "deterministic": 1}, "INVALID_ARGUMENT: deterministic: expected true or false"),
        ({"observation": GOOD, "deterministic": False, "episode": True, "step": 0}, "INVALID_ARGUMENT: episode"),
        ({"observation": GOOD, "deterministic": False, "episode": 2**63, "step": 0}, "INVALID_ARGUMENT"),
    ],
)
def test_what_no_client_would_send_is_refused_in_words(
    server: Server, session: Session, frame: Any, reason: str
) -> None:
    """The service's log is looked at for tracebacks when it ends."""
    with opened(url(server, session)) as robot:
        robot.send(frame if isinstance(frame, (bytes, str)) else msgpack.packb(frame))
        told = robot.recv(CALL_S)
        assert isinstance(told, str)
        assert told.startswith(reason)
        with pytest.raises(ConnectionClosedError, match="1011"):
            robot.recv(CALL_S)


def test_numbers_may_be_packed_in_any_way_that_numpy_has(server: Server, session: Session, http: HttpTransport) -> None:
    step = {b"__npgeneric__": True, b"data": 3, b"dtype": "<i8"}
    exploring = {"deterministic": {b"__npgeneric__": True, b"data": False, b"dtype": "|b1"}, "episode": 1, "step": step}
    wanted = http.act(session.id, OBSERVATION, ActQuery(False, 1, 3), CALL_S).action.tolist()
    with opened(url(server, session)) as robot:
        for observation in (
            packed(OBSERVATION),
            packed(OBSERVATION.astype(">f4")),
            packed(OBSERVATION.astype("<f8")),
            packed(OBSERVATION[None]),
            OBSERVATION.tolist(),
            {key.decode(): value for key, value in GOOD.items()},
        ):
            robot.send(msgpack.packb({"observation/state": observation, **exploring}))
            actions = msgpack.unpackb(robot.recv(CALL_S))["actions"]
            assert np.frombuffer(actions[b"data"], actions[b"dtype"]).tolist() == wanted


def test_a_frame_is_no_larger_than_a_request(server: Server, session: Session) -> None:
    """Broken on purpose: `ws_max_size` left at its default of 16 MiB; seen: such a frame was answered."""
    with opened(url(server, session)) as robot:
        robot.send(msgpack.packb({"state": GOOD, "image": bytes(MAX_BODY_BYTES // 2)}))
        assert msgpack.unpackb(robot.recv(CALL_S))["policy_version"] == 1
        robot.send(msgpack.packb({"state": GOOD, "image": bytes(MAX_BODY_BYTES)}))
        with pytest.raises(ConnectionClosedError, match="1009"):
            robot.recv(CALL_S)


def test_a_stopping_service_ends_connections(checkpoints: Path, tmp_path: Path) -> None:
    with ExitStack() as robots:
        with serving(checkpoints, tmp_path / "data", "--finetune-workers", "0") as server:
            transport = HttpTransport(server.http)
            session = transport.create_session(REWARD, 7, None, "", CALL_S)
            transport.close()
            robot = robots.enter_context(opened(url(server, session)))
        with pytest.raises(ConnectionClosedError, match="1012"):
            robot.recv(CALL_S)
