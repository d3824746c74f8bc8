"""Promise 11: an answer comes within the caller's budget, or the declared fallback does and says why.

What is slow here is slow for real: a policy's file that gives no byte (a pipe), a store that another process has
locked, a server that is stopped by a signal. `tests/contract/test_deadlines.py` has what needs no such thing.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from mier_client.errors import DeadlineExceeded
from mier_client.http_transport import HttpTransport
from mier_client.transport import Transport
from mier_client.values import ActingRules, Fallback, FallbackKind, FallbackReason, Session
from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_proto.v1 import adaptation_pb2_grpc as pb_grpc
from mier_service.data.layout import DATABASE_FILE
from tests.contract import refusals
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, acts, batch, fine_tune, refused, submit
from tests.promises.cycles import FLAGS, Machine
from tests.promises.launcher import Launcher
from tests.promises.robots import SECOND

SHORT = replace(MEAN, budget_ms=200.0)
OVER = replace(MEAN, budget_ms=1e-3)
KINDS = [kind for kind in FallbackKind if kind is not FallbackKind.UNRECOGNIZED]


@pytest.fixture(scope="module")
def machine(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[Machine]:
    """It keeps one session and one policy in memory."""
    flags = (*FLAGS, "--max-active-sessions", "1", "--max-policies", "1")
    made = Machine(launcher, checkpoints, tmp_path_factory.mktemp("in-time") / "data", flags)
    assert made.start()
    made.start_worker()
    yield made
    made.kill()


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Transport]:
    assert machine.at is not None
    made = connect(machine.at, request.param)
    yield made
    made.close()


def declaring(transport: Transport, kind: FallbackKind | None) -> Session:
    """With transitions."""
    session = transport.create_session(REWARD, 7, None, "", CALL_S, ActingRules(fallback=kind))
    submit(transport, session, batch(40))
    return session


def evict(transport: Transport) -> None:
    """Everything but the base policies of sessions with a fallback leaves memory."""
    other = transport.create_session(SECOND, 0, None, "", CALL_S)
    transport.act(other.id, OBSERVATION, MEAN, CALL_S)


def fine_tuned(transport: Transport, machine: Machine, session: Session, seed: int) -> Path:
    """The file of the policy that acts now."""
    folder = machine.data / "policies"
    before = set(folder.iterdir())
    machine.wake()
    fine_tune(transport, session, updates=5, seed=seed)
    (file,) = {file for file in set(folder.iterdir()) - before if file.suffix == ".onnx"}
    return file


@contextmanager
def giving_no_byte(files: list[Path]) -> Iterator[None]:
    """The files are pipes, whose readers wait for as long as this lasts."""
    for file in files:
        file.rename(file.with_suffix(".kept"))
        os.mkfifo(file)
    try:
        yield
    finally:
        for file in files:
            kept = file.with_suffix(".kept")
            pipe = os.open(file, os.O_RDWR)  # whoever waits in opening it gets on
            os.write(pipe, kept.read_bytes())
            kept.rename(file)
            os.close(pipe)


def wait_until_the_store_stands_still(transport: Transport, session: Session) -> None:
    with suppress(DeadlineExceeded):
        while True:
            transport.get_session(session.id, 0.3)


def test_weights_that_do_not_come_from_disk_do_not_hold_up_an_answer(transport: Transport, machine: Machine) -> None:
    """Nor does a gRPC call that has a deadline of its own and states no budget. Broken on purpose: without the limit on
    the wait for what is read; seen: the caller's own timeout."""
    kinds = (FallbackKind.INCUMBENT, FallbackKind.HOLD_LAST, None)
    incumbent, last, none = sessions = [declaring(transport, kind) for kind in kinds]
    first_seed = 10 if isinstance(transport, HttpTransport) else 20
    files = [fine_tuned(transport, machine, session, seed) for seed, session in enumerate(sessions, first_seed)]
    before = {session.id: transport.act(session.id, OBSERVATION, MEAN, CALL_S) for session in sessions}
    assert {acted.policy_version for acted in before.values()} == {2}
    evict(transport)
    with giving_no_byte(files):
        chosen = transport.act(incumbent.id, OBSERVATION, SHORT, CALL_S)
        held = transport.act(last.id, OBSERVATION, SHORT, CALL_S)
        with refused("DEADLINE_EXCEEDED", "loading"):
            transport.act(none.id, OBSERVATION, SHORT, CALL_S)
        _require_own_deadline_kept(machine, last, none)
    # Its own weights left memory with the session, so that the next kind answers.
    assert chosen.fallback == Fallback(FallbackKind.BASE_POLICY, FallbackReason.LOADING)
    assert chosen.policy_version == 1
    assert held.fallback == Fallback(FallbackKind.HOLD_LAST, FallbackReason.LOADING)
    assert (held.policy_version, held.weights_hash) == (0, "")
    assert np.array_equal(held.action, before[last.id].action)
    for session in sessions:
        again = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
        assert (again.policy_version, again.fallback) == (2, None)
        assert np.array_equal(again.action, before[session.id].action)
        transport.delete_session(session.id, "", CALL_S)


def _require_own_deadline_kept(machine: Machine, kept: Session, plain: Session) -> None:
    assert machine.at is not None
    with grpc.insecure_channel(machine.at.grpc) as channel:
        stub = pb_grpc.AdaptationServiceStub(channel)

        def ask(session: Session) -> pb.ActResponse:
            asked = pb.ActRequest(session_id=session.id, observation=encode(OBSERVATION), deterministic=True)
            return stub.Act(asked, timeout=3.0)

        assert ask(kept).fallback.reason == pb.FALLBACK_REASON_LOADING
        with pytest.raises(grpc.RpcError) as told:
            ask(plain)
    assert refusals.of_rpc(told.value).reason == "DEADLINE_EXCEEDED"  # the service's own words, not gRPC's


def test_the_incumbent_acts_though_its_session_left_memory(transport: Transport, machine: Machine) -> None:
    """On shared weights, under the context that it had; the store being locked by another process, with all threads
    that use it waiting."""
    session = declaring(transport, FallbackKind.INCUMBENT)
    transport.adapt(session.id, ALL, "", CALL_S)
    before = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    evict(transport)
    writers = ThreadPoolExecutor(8)
    with closing(sqlite3.connect(machine.data / DATABASE_FILE, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        waiting = [writers.submit(transport.pause, session.id, "", CALL_S) for _ in range(8)]
        try:
            wait_until_the_store_stands_still(transport, session)
            late = transport.act(session.id, OBSERVATION, SHORT, CALL_S)
        finally:
            database.execute("ROLLBACK")
    for call in waiting:
        call.result(CALL_S)
    writers.shutdown()
    assert late.fallback == Fallback(FallbackKind.INCUMBENT, FallbackReason.LOADING)
    assert late.policy_version == before.policy_version == 2
    assert np.array_equal(late.action, before.action)


def test_time_in_which_the_server_stood_still_counts(transport: Transport, machine: Machine) -> None:
    """The request waits in the socket while the process is stopped. Broken on purpose: counting from when it is read;
    seen: the active version's answer, a second late, as if it were in time."""
    session, quick = declaring(transport, FallbackKind.HOLD_LAST), replace(MEAN, budget_ms=400.0)
    transport.act(session.id, OBSERVATION, quick, CALL_S)
    assert machine.server is not None
    machine.server.signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as robot:
        late = robot.submit(transport.act, session.id, OBSERVATION, quick, CALL_S)
        threading.Event().wait(1.2)  # it stands still for three budgets
        machine.server.signal(signal.SIGCONT)
        assert late.result(CALL_S).fallback == Fallback(FallbackKind.HOLD_LAST, FallbackReason.BUSY)


def test_fallbacks_outlive_a_kill(machine: Machine) -> None:
    """And they answer at once: what they need is read before the service is ready."""
    assert machine.at is not None
    transport = connect(machine.at, "grpc")
    sessions = {kind: declaring(transport, kind) for kind in KINDS}
    for session in sessions.values():
        transport.adapt(session.id, ALL, "", CALL_S)
    before = {kind: acts(transport, session) for kind, session in sessions.items()}
    transport.close()
    machine.kill()
    assert machine.start()
    for kind in ("http", "grpc"):
        transport = connect(machine.at, kind)
        late = {k: transport.act(s.id, OBSERVATION, OVER, CALL_S) for k, s in sessions.items()}
        transport.close()
        assert {k: acted.fallback.kind for k, acted in late.items() if acted.fallback} == {
            FallbackKind.INCUMBENT: FallbackKind.INCUMBENT,
            FallbackKind.BASE_POLICY: FallbackKind.BASE_POLICY,
            # What it did last was in memory alone; after the first answer there is one to hold.
            FallbackKind.HOLD_LAST: FallbackKind.HOLD_ZERO if kind == "http" else FallbackKind.HOLD_LAST,
            FallbackKind.HOLD_ZERO: FallbackKind.HOLD_ZERO,
        }
        acted = late[FallbackKind.INCUMBENT]
        assert (acted.policy_version, acted.weights_hash, tuple(acted.action.tolist())) == before[
            FallbackKind.INCUMBENT
        ]
        assert late[FallbackKind.BASE_POLICY].policy_version == 1
