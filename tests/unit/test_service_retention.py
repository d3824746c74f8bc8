"""Retention over a real store, by a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio
import numpy as np
import pytest
from sqlalchemy import update

from mier_service.acting.acting import ActCall, Acting
from mier_service.acting.ready_sessions import ReadySessions
from mier_service.acting.timely import TimelyActing
from mier_service.data import purging
from mier_service.data.retention import Retention
from mier_service.data.storage import KEYS_KEPT_S, Storage
from mier_service.errors import ServiceError
from mier_service.offload import BoundedPool
from mier_service.store import idempotency_rows, operation_rows, session_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.store.schema import operations
from tests.unit.stored import add_operation, add_session

DAY_S = 24 * 3600.0
KEEP_S = 30 * DAY_S
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    now_s: float = field(default_factory=START.timestamp)

    def __call__(self) -> float:
        return self.now_s

    def days(self, count: float) -> None:
        self.now_s += count * DAY_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path, clock: Clock, store_url: str | None) -> Iterator[Storage]:
    made = Storage(tmp_path / "data", 2, clock, store_url)
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[BoundedPool]:
    made = BoundedPool("store", 1, 8)
    yield made
    made.close()


@pytest.fixture
def acting(storage: Storage, pool: BoundedPool) -> Acting:
    return Acting(storage.store, storage.onnx, ReadySessions(10, 4), pool)


def retention(
    storage: Storage,
    acting: Acting,
    pool: BoundedPool,
    keep_s: float | None = KEEP_S,
    uptime: Callable[[], float] | None = None,
) -> Retention:
    return Retention(storage, acting, pool, keep_s, 1.0, uptime or storage.clock)


def names(storage: Storage) -> list[str]:
    with storage.store.read() as c:
        return [session.id for session in session_rows.list_sessions(c, 0, 100)[0]]


def test_what_nobody_used_goes_with_its_files(
    storage: Storage, acting: Acting, pool: BoundedPool, clock: Clock
) -> None:
    """Shared files stay. Broken on purpose: without `remove_files`, the file of its own stays too."""
    keeper = retention(storage, acting, pool)
    for name, weights in (("idle", b"own"), ("twin", b"shared"), ("used", b"shared")):
        add_session(storage, name, weights)
    assert len(storage.weights.names()) == len(storage.onnx.names()) == 2
    clock.days(20)
    with storage.store.write() as c:
        session_rows.touch(c, {"used"}, clock())
    assert anyio.run(keeper.sweep) == 0
    clock.days(11)
    assert anyio.run(keeper.sweep) == 2
    assert names(storage) == ["used"]
    assert len(storage.weights.names()) == len(storage.onnx.names()) == 1
    assert storage.weights.get(next(iter(storage.weights.names()))) == b"shared"


def test_it_is_off_unless_asked_for(storage: Storage, acting: Acting, pool: BoundedPool, clock: Clock) -> None:
    keeper = retention(storage, acting, pool, None)
    add_session(storage, "old", b"")
    clock.days(10_000)
    assert anyio.run(keeper.sweep) == 0
    assert names(storage) == ["old"]


def test_acting_is_use_though_it_writes_nothing(
    storage: Storage, acting: Acting, pool: BoundedPool, clock: Clock
) -> None:
    """Broken on purpose: without `write_down_use`, nothing is taken, and a restart would forget it."""
    keeper = retention(storage, acting, pool)
    add_session(storage, "acts", b"not a policy")
    add_session(storage, "does not", b"")
    clock.days(29)
    acting.give_back_acted({"acts"})
    assert anyio.run(keeper.sweep) == 0
    assert acting.take_acted() == set()  # it is in the store now
    clock.days(2)
    assert anyio.run(keeper.sweep) == 1
    assert names(storage) == ["acts"]


def test_only_an_act_that_was_answered_is_use(storage: Storage, acting: Acting, pool: BoundedPool) -> None:
    add_session(storage, "damaged", b"not a policy")

    async def act() -> None:
        with pytest.raises(Exception, match="protobuf"):  # of ONNX Runtime: the file is whole, but no policy
            await TimelyActing(acting, pool).act(ActCall("damaged", np.zeros(1, np.float32), True))

    anyio.run(act)
    assert acting.take_acted() == set()


def test_time_in_which_the_service_did_not_run_does_not_count(
    storage: Storage, acting: Acting, pool: BoundedPool, clock: Clock
) -> None:
    """Broken on purpose: without it, everything is gone before the first robot is back from a long stop."""
    add_session(storage, "waits", b"")
    clock.days(100)
    keeper = retention(storage, acting, pool)  # the service starts again
    clock.days(29)
    assert anyio.run(keeper.sweep) == 0
    clock.days(2)
    assert anyio.run(keeper.sweep) == 1


def test_a_clock_that_is_set_takes_nothing(storage: Storage, acting: Acting, pool: BoundedPool, clock: Clock) -> None:
    """A robot without a clock of its own starts in 1970, makes a session, and finds a network.

    Seen to fail before it was mended: the session of five minutes ago was deleted."""
    years = (clock() - 60.0) / DAY_S
    clock.days(-years)
    uptime = Clock(0.0)
    keeper = retention(storage, acting, pool, uptime=uptime)
    add_session(storage, "new", b"")
    uptime.now_s = 300.0
    clock.days(years)
    assert anyio.run(keeper.sweep) == 0
    assert names(storage) == ["new"]
    uptime.days(31)
    assert anyio.run(keeper.sweep) == 1


def test_what_is_being_fine_tuned_stays(storage: Storage, acting: Acting, pool: BoundedPool, clock: Clock) -> None:
    keeper = retention(storage, acting, pool)
    add_session(storage, "learns", b"")
    operation_id = add_operation(storage, "learns")
    clock.days(100)
    assert anyio.run(keeper.sweep) == 0
    with storage.store.write() as c:
        operation_rows.request_cancel(c, operation_id, clock())
    assert anyio.run(keeper.sweep) == 1


def test_a_save_that_an_equal_session_is_at_stays(storage: Storage) -> None:
    """Same seed, same data: the same save. Broken on purpose: without the look at other operations it is removed."""
    save = storage.saves.put(b"half way")
    for name in ("gone", "stays"):
        add_session(storage, name, name.encode())
        operation_id = add_operation(storage, name)
        with storage.store.write() as c:
            c.execute(update(operations).where(operations.c.id == operation_id).values(save_hash=save))
    for name, left in (("gone", {save}), ("stays", set[str]())):
        with storage.store.write() as c:
            remains = purging.remove_rows(c, name)
        purging.remove_files(storage, remains)
        assert storage.saves.names() == left


def test_a_sweep_is_bounded(storage: Storage, acting: Acting, pool: BoundedPool, clock: Clock) -> None:
    keeper = retention(storage, acting, pool)
    for number in range(25):
        add_session(storage, f"idle-{number}", b"")
    clock.days(31)
    assert [anyio.run(keeper.sweep) for _ in range(3)] == [20, 5, 0]


def test_old_idempotency_keys_are_forgotten(storage: Storage, acting: Acting, pool: BoundedPool, clock: Clock) -> None:
    keeper = retention(storage, acting, pool, None)
    old, young = Retry.of("old", "Adapt", "s"), Retry.of("young", "Adapt", "s")
    with storage.store.write() as c:
        idempotency_rows.remember(c, old, "{}", clock() - KEYS_KEPT_S - 1.0)
        idempotency_rows.remember(c, young, "{}", clock())
    anyio.run(keeper.sweep)
    with storage.store.read() as c:
        assert idempotency_rows.earlier_reply(c, old) is None
        assert idempotency_rows.earlier_reply(c, young) == "{}"


def test_use_that_could_not_be_written_down_is_kept(
    storage: Storage, acting: Acting, pool: BoundedPool, tmp_path: Path
) -> None:
    keeper = retention(storage, acting, pool)
    acting.give_back_acted({"acts"})
    with storage.store.engine.connect() as other:
        other.exec_driver_sql("ALTER TABLE sessions RENAME TO hidden")
        other.commit()
    with pytest.raises(ServiceError):
        anyio.run(keeper.write_down_use)
    assert acting.take_acted() == {"acts"}
