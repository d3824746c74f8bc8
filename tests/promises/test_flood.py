"""One key asks for all that it can get, and another for an act now and then: how much longer does that one wait?

The long form writes down the other's median and 99th percentile, without a flood and with it by turns, in one run. No
assertion is about time; that the other is answered each time is one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from mier_client.values import Session
from mier_service.access.keys import Scope
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, MEAN, OBSERVATION
from tests.contract.keys import make_key, migrate, wait_until
from tests.contract.server import Server, serving

LONG = "MIER_PROMISES_LONG" in os.environ
ROUNDS, ACTS, EVERY_S = (8, 100, 0.02) if LONG else (1, 20, 0.0)
"""Of each round, one without and one with a flood."""


@pytest.fixture(scope="module")
def server(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("flooded") / "data"
    migrate(data)
    with serving(checkpoints, data, "--keys", "required", "--finetune-workers", "0") as running:
        yield running


@contextmanager
def flooding(server: Server, kind: str, key: str, session: Session, at_once: int) -> Iterator[Callable[[], list[int]]]:
    """Begins a flood and returns once it has an answer, or ends the one that is under way: answered and refused."""
    address = server.http if kind == "http" else server.grpc
    command = [sys.executable, "-m", "tests.promises.flood", kind, address, key, session.id, str(at_once)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, said = process.stdin, process.stdout

        def toggle() -> list[int]:
            to.write("\n")
            to.flush()
            return [int(word) for word in said.readline().split()]

        try:
            yield toggle
        finally:
            to.close()


@pytest.mark.parametrize("at_once", [100, 400], ids=["as_it_may", "beyond"])
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_others_are_served(
    server: Server, kind: str, at_once: int, record_property: Callable[[str, object], None]
) -> None:
    """The flood is of one key, over the same transport; a key may have 128 calls under way."""
    greedy, modest = (make_key(server.data, scope) for scope in (Scope.ADMIN, Scope.ADMIN))
    wait_until(server.http, modest, good=True)
    waited: dict[bool, list[float]] = {False: [], True: []}
    counts = np.zeros(2, int)
    with closing(connect(server, kind, modest)) as other:
        session = other.create_session(REWARD, 7, None, "", CALL_S)
        with flooding(server, kind, greedy, session, at_once) as toggle:
            for _ in range(ROUNDS):
                for flood in (False, True):
                    if flood:
                        toggle()
                    for _ in range(ACTS):
                        began_s = time.perf_counter()
                        assert other.act(session.id, OBSERVATION, MEAN, CALL_S).policy_version == 1
                        waited[flood].append(time.perf_counter() - began_s)
                        time.sleep(EVERY_S)
                counts += toggle()
    answered, refused = map(int, counts)
    assert answered > 0
    if kind == "http":
        assert (refused > 0) is (at_once > 128)
    record_property("tried", 2 * ROUNDS * ACTS)
    name = f"{kind} {at_once}"
    record_property(f"{name}: flood answered", answered)
    record_property(f"{name}: flood refused", refused)
    for flood, seconds in waited.items():
        for percent in (50, 99):
            found = int(1e6 * float(np.percentile(seconds, percent)))
            record_property(f"{name}: p{percent} us {'with' if flood else 'without'}", found)
