"""The store by itself, on SQLite and on PostgreSQL: what its writes may rely on while others write at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from sqlalchemy import func, insert, select, update

from mier_service.access.key_bounds import ROW_BYTES
from mier_service.data.storage import Storage
from mier_service.errors import Reason, ServiceError
from mier_service.offload import BoundedPool
from mier_service.sessions.recorded import MAX_PAGE_BYTES, Recorded, RecordedPage
from mier_service.store import idempotency_rows, operation_rows, session_rows, transition_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.store.operation_rows import LeaseLost
from mier_service.store.schema import idempotency_keys, key_usage, operations, sessions, transition_batches, versions
from mier_service.store.store import TOKENED
from mier_service.transition_matrix import FloatArray, RowLayout, TransitionBatch
from mier_service.values import MAX_SEED, StoredValue, WindowValue
from tests.unit.stored import add_operation, add_session, session_value

T = TypeVar("T")
MANY = 6
WITHIN_S = 30.0
LAYOUT = RowLayout(1, 1)


@pytest.fixture
def storages(tmp_path: Path, store_url: str | None) -> Iterator[list[Storage]]:
    """As many services would have: each its own on PostgreSQL, one for all on SQLite."""
    count = 1 if store_url is None else MANY
    made = [Storage(tmp_path / "data", MANY if count == 1 else 1, lambda: 0.0, store_url) for _ in range(count)]
    made[0].prepare()
    yield made
    for storage in made:
        storage.close()


@pytest.fixture
def storage(storages: list[Storage]) -> Storage:
    return storages[0]


def at_once(storages: list[Storage], act: Callable[[Storage, int], T]) -> list[T]:
    """What it gives in `MANY` threads that begin together."""
    together = threading.Barrier(MANY)

    def one(i: int) -> T:
        with storages[i % len(storages)].store.read():
            pass  # connected
        together.wait(WITHIN_S)
        return act(storages[i % len(storages)], i)

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(one, range(MANY)))


def steps(first: int, count: int) -> TransitionBatch:
    rows = np.arange(first, first + count, dtype=np.float32)[:, None] * np.ones(LAYOUT.width, np.float32)
    return TransitionBatch(0, first, rows, np.ones(count, np.int64))


@pytest.mark.parametrize("of", [None, "s"])
def test_a_key_that_comes_many_times_at_once_is_done_once(storages: list[Storage], of: str | None) -> None:
    """Broken on purpose: without the lock on the key, where it is asked for different sessions PostgreSQL refuses the
    second row, an IntegrityError that a caller would see as INTERNAL."""
    for name in ("s", *map(str, range(MANY))):
        add_session(storages[0], name, b"")
    made: list[int] = []
    two = threading.Barrier(2)

    def ask(storage: Storage, i: int) -> StoredValue:
        with storage.once(Retry.of("key", "Submit", "x"), StoredValue, of=of and str(i)) as write:
            if write.earlier is None:
                made.append(i)
                with contextlib.suppress(threading.BrokenBarrierError):
                    two.wait(0.3)  # for another that should not be here
                write.reply = StoredValue(stored=i, duplicates=0, transitions_count=0)
        return write.result

    replies = at_once(storages, ask)
    assert len(made) == 1
    assert {reply.stored for reply in replies} == set(made)
    with storages[0].store.read() as c:
        assert c.execute(select(func.count()).select_from(idempotency_keys)).scalar() == 1


def test_what_a_key_stores_in_many_sessions_at_once_is_counted(storages: list[Storage]) -> None:
    """They share the row of kept replies. Broken on purpose: where it is updated, or else inserted, PostgreSQL refuses
    the second of two first replies, an IntegrityError."""
    for i in range(MANY):
        add_session(storages[0], str(i), b"")

    def write(storage: Storage, i: int) -> None:
        for step in range(3):
            retry = Retry.of(f"{i} {step}", "Submit", "x")
            with storage.once(retry, StoredValue, of=str(i)) as write:
                write.added(str(i), rows=1)
                write.reply = StoredValue(stored=1, duplicates=0, transitions_count=step)

    at_once(storages, write)
    with storages[0].store.read() as c:
        counted = {row.session_id: row.stored_bytes for row in c.execute(select(key_usage))}
        replies = c.execute(select(func.sum(idempotency_keys.c.stored_bytes))).scalar_one()
    assert counted == {"": int(replies)} | {str(i): 3 * ROW_BYTES for i in range(MANY)}


def test_writes_about_one_session_are_one_after_another(storages: list[Storage]) -> None:
    """Overlapping batches, and version numbers, from many services. Broken on purpose: without the lock on the
    session's row, PostgreSQL has some steps twice, or refuses a number that two of them took."""
    add_session(storages[0], "s", b"")

    def write(storage: Storage, i: int) -> None:
        for first in range(0, 20, 2):
            with storage.store.write(of="s") as c:
                stored = transition_rows.append(c, "s", LAYOUT, steps(first, 3 + i % 3))
                session_rows.add_to_count(c, "s", stored.steps, 0.0)
                version, onnx = session_rows.get_version(c, "s", session_rows.newest_version_number(c, "s"))
                session_rows.add_version(c, "s", version.model_copy(update={"number": version.number + 1}), onnx)

    at_once(storages, write)
    with storages[0].store.read() as c:
        ranges = c.execute(select(transition_batches.c.first_step, transition_batches.c.count)).all()
        numbers = c.execute(select(versions.c.number).order_by(versions.c.number)).scalars().all()
        counted = session_rows.get_session(c, "s").transitions_count
        read = transition_rows.read(c, "s", LAYOUT, WindowValue())
    stored = sorted(step for first, count in ranges for step in range(first, first + count))
    assert stored == list(range(23))
    assert counted == len(stored)
    assert sorted(read[:, 0].tolist()) == stored
    assert numbers == list(range(1, 1 + 1 + 10 * MANY))


def test_each_operation_is_claimed_by_one(storages: list[Storage]) -> None:
    """Broken on purpose: without FOR UPDATE SKIP LOCKED, on PostgreSQL two workers get the same one."""
    names = [add_named_operation(storages[0], str(i)) for i in range(MANY - 1)]

    def claim(storage: Storage, _: int) -> str | None:
        with storage.store.write(of=TOKENED) as c:
            row = operation_rows.claim(c, 1.0, 10.0)
        return None if row is None else str(row.id)

    claimed = at_once(storages, claim)
    assert sorted(map(str, claimed)) == sorted([*names, "None"])
    with storages[0].store.read() as c:
        assert {row.attempts for row in c.execute(select(operations))} == {1}


def test_a_stale_token_writes_nothing(storage: Storage) -> None:
    """The lease ran out and another worker has it; and so with one that was told to cancel what nobody is at."""
    name = add_named_operation(storage, "s")

    def claim(now_s: float) -> int:
        with storage.store.write(of=TOKENED) as c:
            row = operation_rows.claim(c, now_s, 10.0)
        assert row is not None
        return int(row.lease_token)

    first, second = claim(1.0), claim(12.0)
    assert (first, second) == (1, 2)
    with pytest.raises(LeaseLost), storage.store.write(of=TOKENED) as c:
        operation_rows.change(c, name, first, 13.0, updates_done=7)
    with pytest.raises(LeaseLost), storage.store.write(of=TOKENED) as c:
        operation_rows.renew(c, name, first, 99.0)
    with storage.store.write() as c:
        assert operation_rows.request_cancel(c, name, 30.0).state.final
        assert operation_rows.get_row(c, name).lease_token == 3
    with pytest.raises(LeaseLost), storage.store.write(of=TOKENED) as c:
        operation_rows.change(c, name, second, 31.0, updates_done=7)
    with storage.store.read() as c:
        assert operation_rows.get(c, name).updates_done == 0


def test_a_read_is_one_moment(storages: list[Storage]) -> None:
    """Broken on purpose: with PostgreSQL's READ COMMITTED the second look sees the new session."""
    add_session(storages[0], "first", b"")
    with storages[0].store.read() as c:
        assert session_rows.count_sessions(c) == 1
        other = storages[-1]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(add_session, other, "second", b"").result(WITHIN_S)
        assert session_rows.count_sessions(c) == 1
    with storages[0].store.read() as c:
        assert session_rows.count_sessions(c) == 2


def test_a_write_that_fails_leaves_nothing(storage: Storage) -> None:
    add_session(storage, "s", b"")
    with pytest.raises(ServiceError, match="nobody"), storage.store.write(of="s") as c:  # noqa: PT012
        session_rows.add_to_count(c, "s", 5, 0.0)
        session_rows.get_session(c, "nobody")
    with storage.store.read() as c:
        assert session_rows.get_session(c, "s").transitions_count == 0


def test_what_is_stored_comes_back_as_it_was(storage: Storage) -> None:
    """Numbers beyond 32 bits, any byte, text of any script; rows are numbered in order and no number comes twice."""
    add_session(storage, "größer 🤖 \\ ' \" \x7f", b"", seed=MAX_SEED - 1)
    blob = bytes(range(256))
    row = {"session_id": "größer 🤖 \\ ' \" \x7f", "episode": 2**31 - 1, "first_step": 2**31 - 9, "count": 8}
    numbers = []
    for step in range(3):
        with storage.store.write() as c:
            values = row | {"rows": blob, "policy_versions": blob, "first_step": step}
            made = c.execute(insert(transition_batches).values(**values).returning(transition_batches.c.row))
            numbers.append(made.scalar_one())
            if step == 1:
                c.execute(transition_batches.delete().where(transition_batches.c.row == numbers[-1]))
    assert numbers == sorted(set(numbers))
    with storage.store.read() as c:
        (session,), _ = session_rows.list_sessions(c, 0, 2)
        found = c.execute(select(transition_batches)).first()
    assert (session.id, session.seed) == (row["session_id"], MAX_SEED - 1)
    assert found is not None
    assert (found.rows, found.episode) == (blob, 2**31 - 1)


def test_old_keys_go_oldest_first_and_bounded(storage: Storage) -> None:
    for number in range(5):
        with storage.store.write() as c:
            idempotency_rows.remember(c, Retry.of(str(number), "Adapt", "s"), "{}", float(number))
    with storage.store.write() as c:
        idempotency_rows.forget_before(c, 4.0, limit=3)
    with storage.store.read() as c:
        assert sorted(c.execute(select(idempotency_keys.c.key)).scalars()) == ["3", "4"]


def test_a_deleted_session_takes_all_that_is_its_own(storage: Storage) -> None:
    for name in ("gone", "stays"):
        add_named_operation(storage, name)
        with storage.store.write(of=name) as c:
            transition_rows.append(c, name, LAYOUT, steps(0, 3))
    with storage.store.write() as c:
        session_rows.delete_session(c, "gone")
    with storage.store.read() as c:
        for table in (operations, versions, transition_batches):
            assert set(c.execute(select(table.c.session_id)).scalars()) == {"stays"}
        assert c.execute(select(sessions.c.id)).scalars().all() == ["stays"]


def test_a_storage_that_fails_is_said(storage: Storage) -> None:
    with storage.store.engine.begin() as c:
        c.exec_driver_sql("ALTER TABLE sessions RENAME TO hidden")
    for attempt in (storage.store.read, storage.store.write):
        with pytest.raises(ServiceError) as told, attempt() as c:
            c.execute(update(sessions).values(seed=1))
        assert told.value.reason is Reason.STORAGE_UNAVAILABLE
        assert "sessions" in told.value.detail or "read-only" in told.value.detail


def add_named_operation(storage: Storage, session: str) -> str:
    add_session(storage, session, b"")
    return add_operation(storage, session)


def test_a_page_of_wide_transitions_holds_few(storage: Storage) -> None:
    """The bound is of bytes: 50 kB a step here."""
    session = session_value("wide", 0.0)
    names = [f"o{i}" for i in range(6_250)]
    environment = session.environment.model_copy(update={"observation_dim": len(names), "observation_names": names})
    layout = RowLayout(len(names), 1)
    matrix = np.random.default_rng(0).normal(size=(12, layout.width)).astype(np.float32)
    with storage.store.write() as c:
        session_rows.add_session(c, session.model_copy(update={"environment": environment}), "anonymous")
        transition_rows.append(c, "wide", layout, TransitionBatch(0, 0, matrix, np.ones(12, np.int64)))
    recorded, token = Recorded(storage, BoundedPool("store", 1, 4)), ""
    found: list[FloatArray] = []

    async def page() -> RecordedPage:
        return await recorded.transitions("wide", 1000, token)

    while True:
        part = asyncio.run(page())
        (run,) = part.runs
        assert run.rows.nbytes <= MAX_PAGE_BYTES
        assert run.first_step == sum(len(rows) for rows in found)
        found.append(run.rows)
        token = part.next_page_token
        if not token:
            break
    assert [len(rows) for rows in found] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(found), matrix)
