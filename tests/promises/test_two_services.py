"""Two services on one PostgreSQL and one folder of files: each sees what the other does, and one goes on alone.

MIER_KILL_CYCLES=500 is the long form, as for the kills of a service that is alone."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from mier_client.transport import Transport
from mier_client.values import Adapted, Operation, OperationState, Session, Submitted
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, LEARN_S, acts, batch, refused, submit, wait
from tests.postgres import Postgres
from tests.promises.cycles import END_WITHIN_S, FLAGS, LIVES, Machine
from tests.promises.launcher import Launcher
from tests.promises.ledger import Books, Ledger
from tests.promises.robots import SECOND, Robot, observe

T = TypeVar("T")
SHORT_CYCLES = 2
SEED = int(os.environ.get("MIER_PROMISES_SEED", "1"))
FOLLOWED_WITHIN_S = 60.0
"""Far beyond what is promised (a second): time is not asserted on a machine that may be busy."""


@pytest.fixture(scope="module")
def services(
    launcher: Launcher, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[tuple[Machine, Machine]]:
    url, data = postgres.new_store(), tmp_path_factory.mktemp("two") / "data"
    machines = [Machine(launcher, checkpoints, data, FLAGS, url, name) for name in ("-a", "-b")]
    assert machines[0].start()
    with both_transports(machines[0]) as transports:
        for name in (REWARD, SECOND):  # whose policies are then in the store, so that no later start has to make them
            transports["http"].create_session(name, 0, None, "", CALL_S)
    assert machines[1].start(), "the second joins the first"
    yield machines[0], machines[1]
    for machine in machines:
        machine.kill()


@pytest.fixture
def pair(services: tuple[Machine, Machine]) -> Iterator[tuple[Machine, Machine]]:
    """Without workers: a test starts those that it wants."""
    yield services
    for machine in services:
        machine.kill_worker()


@contextmanager
def both_transports(machine: Machine) -> Iterator[dict[str, Transport]]:
    assert machine.at is not None
    made = {kind: connect(machine.at, kind) for kind in ("http", "grpc")}
    yield made
    for transport in made.values():
        transport.close()


def until(so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + FOLLOWED_WITHIN_S
    while not so():
        assert time.monotonic() < deadline_s, "the other service does not follow"


def test_what_one_does_the_other_knows(pair: tuple[Machine, Machine]) -> None:
    """A session that acts through one service while everything else is done through the other."""
    with both_transports(pair[0]) as a, both_transports(pair[1]) as b:
        here, there = a["http"], b["grpc"]
        session = here.create_session(REWARD, 7, None, "", CALL_S)
        assert acts(there, session) == acts(here, session)
        submit(here, session, batch(40))
        here.adapt(session.id, ALL, "", CALL_S)
        until(lambda: acts(there, session)[0] == 2)
        assert acts(there, session) == acts(here, session)
        here.promote(session.id, 1, "by hand", "", CALL_S)
        until(lambda: acts(there, session)[0] == 1)
        assert submit(there, session, batch(40)).stored == 0, "known, whoever stored them"
        here.pause(session.id, "", CALL_S)
        with refused("SESSION_PAUSED"):
            there.adapt(session.id, ALL, "", CALL_S)
        here.resume(session.id, "", CALL_S)
        pair[1].start_worker()
        asked = here.finetune(session.id, 5, 0, "", CALL_S)
        assert wait(here, asked).state is OperationState.SUCCEEDED
        until(lambda: acts(there, session)[0] == 3)
        assert acts(there, session) == acts(here, session)
        there.delete_session(session.id, "", CALL_S)
        until(lambda: _gone(here, session))


def _gone(transport: Transport, session: Session) -> bool:
    with pytest.raises(Exception) as told:  # noqa: PT011, PT012
        acts(transport, session)
        raise LookupError
    return getattr(told.value, "reason", "") == "SESSION_NOT_FOUND"


def test_a_key_that_comes_to_both_at_once_is_done_once(pair: tuple[Machine, Machine]) -> None:
    """Create, submit and adapt, four times each at the same moment, over both transports of both."""
    with both_transports(pair[0]) as a, both_transports(pair[1]) as b, ThreadPoolExecutor(4) as pool:
        transports = (*a.values(), *b.values())

        def everywhere(call: Callable[[Transport], T]) -> list[T]:
            return list(pool.map(call, transports))

        for number in range(5):
            key = f"key {number} "
            made = everywhere(partial(_create, key=key))
            (session,) = {session.id for session in made}
            stored = everywhere(partial(_submit, session=session, key=key))
            assert [reply.transitions_count for reply in stored] == [40] * 4
            adapted = everywhere(partial(_adapt, session=session, key=key))
            assert [reply.active_version.number for reply in adapted] == [2] * 4


def _create(transport: Transport, key: str) -> Session:
    return transport.create_session(REWARD, 7, None, key + "create", CALL_S)


def _submit(transport: Transport, session: str, key: str) -> Submitted:
    return transport.submit_transitions(session, batch(40), key + "submit", CALL_S)


def _adapt(transport: Transport, session: str, key: str) -> Adapted:
    return transport.adapt(session, ALL, key + "adapt", CALL_S)


def test_one_is_killed_and_the_other_goes_on(
    pair: tuple[Machine, Machine], record_property: Callable[[str, object], None]
) -> None:
    """Robots at both; one service and its worker get SIGKILL in the middle; the robots of the other notice nothing.
    What the dead one left open is asked again of the other, under the same keys: all that was acknowledged is there
    once, the fine-tune goes on with the other's worker, and every session acts with what the store names."""
    cycles = int(os.environ.get("MIER_KILL_CYCLES", SHORT_CYCLES))
    ledger, chance = Ledger(), random.Random(SEED)
    books = Books(ledger, pair[0].data, pair[0].store_url)
    slowest_s = 0.0
    for cycle in range(cycles):
        dies, stays = pair if cycle % 2 == 0 else pair[::-1]
        with both_transports(stays) as there:
            with both_transports(dies) as here:
                dies.start_worker()
                learning = _long_fine_tune(here["http"], dies)
                stays.start_worker()
                slowest_s = max(slowest_s, _kill_in_traffic(ledger, dies, stays, here, there, SEED + cycle, chance))
            # It takes the lease of the dead worker to run out, and then all that there is to learn.
            found: int | None = None
            for seen in there["http"].watch_operation(learning.id, 2 * LEARN_S):
                stays.wake()
                if seen.attempts > 1 and found is None:
                    found = seen.updates_done
                elif seen.attempts > 1 and seen.updates_done != found:
                    break
            there["grpc"].cancel_operation(learning.id, "", CALL_S)
            wait(there["http"], learning)
            for _, operation in books.long_operations():
                there["http"].cancel_operation(operation, "", CALL_S)
            ledger.settle(there)
            ledger.repeat(there, 6)
            books.compare(exact=False)
            until(partial(_acting, books, there))
        stays.kill_worker()
        assert dies.start(), "it joins again"
    for name, value in {"tried": cycles, "slowest_s": slowest_s, **ledger.tally}.items():
        record_property(name, value)
    print(f"{cycles} cycles, at most {slowest_s:.2f} s to the next acknowledged write", dict(ledger.tally))
    assert ledger.tally["answers lost"] > 0, "no answer was ever lost: the kills came between calls only"


def _acting(books: Books, transports: dict[str, Transport]) -> bool:
    try:
        books.acting(transports, observe)
    except AssertionError:
        return False
    return True


def _long_fine_tune(transport: Transport, machine: Machine) -> Operation:
    """One that the machine's own worker is at."""
    session = transport.create_session(REWARD, 0, None, "", CALL_S)
    submit(transport, session, batch(40))
    asked = transport.finetune(session.id, 1_000_000, 0, "", CALL_S)
    machine.wake()
    for seen in transport.watch_operation(asked.id, 2 * LEARN_S):
        if seen.updates_done > 0:
            return seen
    raise AssertionError("it ended")


def _kill_in_traffic(
    ledger: Ledger,
    dies: Machine,
    stays: Machine,
    here: dict[str, Transport],
    there: dict[str, Transport],
    seed: int,
    chance: random.Random,
) -> float:
    """Seconds from the kill to the next write that the other service acknowledged."""
    stop = threading.Event()
    robots = [
        (Robot(ledger, kind, seed * 100 + i, learns=i < 2), (here if i < 4 else there)[kind])
        for i, kind in enumerate(("http", "grpc") * 4)
    ]
    threads = [threading.Thread(target=robot.live, args=(transport, LIVES, stop)) for robot, transport in robots]
    before = ledger.tally["acknowledged"]
    for thread in threads:
        thread.start()
    enough = before + chance.randint(40, 80)
    with ledger.changed:
        while ledger.tally["acknowledged"] < enough:
            ledger.changed.wait(0.05)
            dies.wake()
    killed_s = time.monotonic()
    dies.kill()
    with ledger.changed:
        then = ledger.tally["acknowledged"]
        assert ledger.changed.wait_for(lambda: ledger.tally["acknowledged"] > then, END_WITHIN_S), "the other stands"
        took_s = time.monotonic() - killed_s
        goal = then + 20
        while ledger.tally["acknowledged"] < goal and any(thread.is_alive() for thread in threads):
            ledger.changed.wait(0.05)
            stays.wake()
    stop.set()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.1)
            stays.wake()
    for robot, _ in robots:
        if robot.fault is not None:
            raise AssertionError(f"a robot met what it should not: {robot.fault!r}") from robot.fault
    return took_s
