"""The C++ client, built from the contract and run against a real service. Without its toolchain these are skipped, and
say what to install; `make cpp` fails there instead."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from anyio import to_thread

from mier_client import Client
from mier_client.values import Session
from tests.contract.conftest import REWARD
from tests.contract.cutting import CuttingProxy
from tests.contract.server import Server

ROOT = Path(__file__).parents[2]
BUILD_S, ANSWER_S = 900, 120
PACKAGES = "cmake g++ libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc"
SEEN = "0.3 -0.2 0.5 1.0"


def missing() -> list[str]:
    """Of the toolchain, what is not here."""
    tools = [tool for tool in ("cmake", "c++", "protoc", "grpc_cpp_plugin") if shutil.which(tool) is None]
    if tools:
        return tools
    preprocess = ["c++", "-std=c++20", "-E", "-x", "c++", "-include", "grpcpp/grpcpp.h", os.devnull]
    return [] if subprocess.run(preprocess, capture_output=True, check=False).returncode == 0 else ["grpcpp/grpcpp.h"]


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the programs."""
    if lacking := missing():
        told = f"the C++ client's toolchain lacks {', '.join(lacking)}: apt-get install {PACKAGES}"
        if os.environ.get("MIER_NEEDS_CPP"):
            pytest.fail(told)
        pytest.skip(told)
    build = ROOT / "build" / "cpp"
    for command in (["cmake", "-S", "clients/cpp", "-B", str(build)], ["cmake", "--build", str(build), "-j", "2"]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build


class Robot:
    """A program that makes one call for each line that it is told."""

    def __init__(self, program: Path, target: str) -> None:
        self._process = subprocess.Popen([program, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, line: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(line + "\n")
        stdin.flush()
        return stdout.readline().rstrip("\n")

    def end(self) -> int:
        self._process.communicate(timeout=ANSWER_S)
        return self._process.returncode


@pytest.fixture
def robot(built: Path, server: Server) -> Iterator[Robot]:
    made = Robot(built / "behaviour", server.grpc)
    yield made
    assert made.end() == 0


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client.connect(f"grpc://{server.grpc}") as made:
        yield made


@pytest.fixture
def session(client: Client) -> Session:
    return client.create_session(REWARD)


def test_the_example_is_a_robots_round(built: Path, server: Server, client: Client) -> None:
    done = subprocess.run(
        [built / "control_loop", server.grpc, REWARD, "2", "0"],
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "40 steps stored" in done.stdout
    session_id = done.stdout.split()[1].rstrip(":")
    runs = list(client.list_transitions(session_id))
    assert [(run.episode, run.first_step, len(run.reward)) for run in runs] == [(0, 0, 20), (1, 0, 20)]
    assert [bool(flag) for flag in runs[0].truncated] == [False] * 19 + [True]
    np.testing.assert_array_equal(runs[0].observation[1:], runs[0].next_observation[:-1])
    assert client.get_session(session_id).model_context.number == 1


def test_it_acts_as_the_other_clients_do(robot: Robot, client: Client, session: Session) -> None:
    action = client.act(session.id, [float(x) for x in SEEN.split()], deterministic=True).action
    for how in ("act", "stream", "stream"):
        word, version, *values = robot.tell(f"{how} {session.id} 30000 {SEEN}").split()
        assert (word, version) == ("acted", "1")
        np.testing.assert_allclose([float(value) for value in values], action, rtol=1e-4)


def test_what_it_submits_is_stored_and_learned_from(robot: Robot, client: Client) -> None:
    session_id = robot.tell(f"create {REWARD}").removeprefix("session ")
    assert robot.tell(f"submit {session_id} 40") == "stored 40"
    assert robot.tell(f"submit {session_id} 40") == "stored 0"
    assert robot.tell(f"get {session_id}") == "transitions 40"
    assert robot.tell(f"adapt {session_id}") == "context 1"
    version = int(robot.tell(f"finetune {session_id} 20").removeprefix("version "))
    assert version in [found.number for found in client.list_versions(session_id)]
    assert robot.tell(f"delete {session_id}") == "deleted"


def test_refusals_are_typed_and_in_the_services_own_words(robot: Robot, session: Session) -> None:
    unknown = robot.tell("get nobody")
    assert unknown.startswith("NotFound SESSION_NOT_FOUND id:"), unknown
    assert "id: " not in unknown, "the request has an id"
    narrow = robot.tell(f"act {session.id} 30000 1 2 3")
    assert narrow.startswith("InvalidRequest INVALID_ARGUMENT"), narrow
    assert "field:observation" in narrow
    few = robot.tell(f"adapt {session.id}")
    assert few.startswith("Conflict INSUFFICIENT_DATA"), few
    assert robot.tell(f"finetune {session.id} 20").startswith("Conflict")


def test_a_refused_act_does_not_end_the_stream(robot: Robot, session: Session) -> None:
    assert robot.tell(f"stream {session.id} 30000 {SEEN}").startswith("acted")
    assert robot.tell(f"stream nobody 30000 {SEEN}").startswith("NotFound SESSION_NOT_FOUND")
    assert robot.tell(f"stream {session.id} 30000 1 2").startswith("InvalidRequest")
    assert robot.tell(f"stream {session.id} 30000 {SEEN}").startswith("acted")


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(server.grpc) as made:
        yield made


@pytest.mark.anyio
async def test_a_stream_that_breaks_is_taken_up_again(built: Path, proxy: CuttingProxy, session: Session) -> None:
    """Broken on purpose: without `stream_.reset()` where it broke, the second act fails."""
    robot = Robot(built / "behaviour", proxy.url.removeprefix("grpc://"))
    ask = f"stream {session.id} 30000 {SEEN}"
    first = await to_thread.run_sync(robot.tell, ask)
    proxy.cut()
    second = await to_thread.run_sync(robot.tell, ask)
    assert first == second
    assert first.startswith("acted 1")
    assert proxy.connections >= 2
    assert await to_thread.run_sync(robot.end) == 0


def test_a_service_that_is_away_is_told_in_time(built: Path) -> None:
    """Nobody listens at port 1: tried again until the time is over, or the tries are."""
    robot = Robot(built / "behaviour", "127.0.0.1:1")
    for how in ("act", "stream"):
        told = robot.tell(f"{how} s 300 {SEEN}")
        assert told.split()[0] in ("Unavailable", "DeadlineExceeded"), told
    assert robot.end() == 0
