"""The awaited client against a real service: every call that there is, and what it does when a connection breaks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from mier_client import (
    AsyncClient,
    Client,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    OperationState,
    ServerFault,
    Session,
    SessionState,
    Timeouts,
    Unavailable,
)
from tests.contract import tiny
from tests.contract.conftest import DYNAMICS, REWARD
from tests.contract.cutting import CuttingProxy
from tests.contract.helpers import CALL_S, LEARN_S, OBSERVATION
from tests.contract.server import Server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_event_loop")]
PATIENT = Timeouts(act_s=CALL_S, call_s=CALL_S, adapt_s=CALL_S, watch_s=LEARN_S)


@pytest.fixture(params=["http", "grpc"])
def target(request: pytest.FixtureRequest, server: Server) -> str:
    """The service over each transport."""
    return server.http if request.param == "http" else f"grpc://{server.grpc}"


@pytest.fixture
async def client(target: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient.connect(target, PATIENT) as made:
        yield made


@pytest.fixture
async def session(client: AsyncClient) -> Session:
    return await client.create_session(REWARD, seed=7)


async def submit(client: AsyncClient, session: Session, count: int = 40) -> int:
    columns: dict[str, Any] = dict(tiny.arrays(count, 3))
    stored = await client.submit_transitions(session.id, episode=0, first_step=0, policy_version=1, **columns)
    return stored.transitions_count


async def test_a_robots_round_is_that_of_the_blocking_client(client: AsyncClient, target: str) -> None:
    """All calls, in the order in which a robot makes them, beside the other client's own session."""
    with Client.connect(target, PATIENT) as other:
        twin = other.create_session(REWARD, seed=7)
        session = await client.create_session(REWARD, seed=7)
        assert await client.live()
        assert await client.ready()
        mine = await client.act(session.id, OBSERVATION, episode=0, step=3)
        assert mine.action.tolist() == other.act(twin.id, OBSERVATION, episode=0, step=3).action.tolist()
        assert await submit(client, session) == 40
        columns: dict[str, Any] = dict(tiny.arrays(40, 3))
        other.submit_transitions(twin.id, episode=0, first_step=0, policy_version=1, **columns)
        adapted, twins = await client.adapt(session.id), other.adapt(twin.id)
        assert adapted.model_context.values.tolist() == twins.model_context.values.tolist()
    assert adapted.published
    operation = await client.finetune(session.id, updates=20)
    assert (await client.get_operation(operation.id)).id == operation.id
    assert (await client.wait_operation(operation.id)).result_version == 3
    assert [version.number async for version in client.list_versions(session.id)] == [1, 2, 3]
    assert (await client.roll_back(session.id, reason="r")).active_version == 2
    assert (await client.promote(session.id, 3, reason="r")).active_version == 3
    assert (await client.pin(session.id, 1, reason="r")).pinned
    assert not (await client.unpin(session.id, reason="r")).pinned
    with pytest.raises(Conflict, match="ENVIRONMENT_MISMATCH"):
        await client.move(session.id, DYNAMICS, reason="r")
    bundle = await client.get_bundle(session.id)
    assert bundle is not None
    with pytest.raises(ServerFault, match="REPLY_TOO_LARGE"):
        await client.get_bundle(session.id, max_bytes=len(bundle) - 1)
    kinds = [entry.kind async for entry in client.list_promotions(session.id)]
    assert [str(kind) for kind in kinds] == ["publish", "publish", "publish", "rollback", "promote", "pin", "unpin"]
    assert (await client.pause(session.id)).state is SessionState.PAUSED
    assert (await client.resume(session.id)).state is SessionState.ACTIVE
    assert session.id in [known.id async for known in client.list_sessions()]
    await client.delete_session(session.id)
    with pytest.raises(NotFound, match="SESSION_NOT_FOUND"):
        await client.get_session(session.id)


async def test_an_operation_is_watched_and_cancelled(client: AsyncClient, session: Session) -> None:
    await submit(client, session)
    operation = await client.finetune(session.id, updates=1_000_000)
    states = []
    async for seen in client.watch_operation(operation.id):
        states.append(seen.state)
        if not seen.cancel_requested:
            await client.cancel_operation(operation.id)
    assert states[-1] is OperationState.CANCELLED


async def test_many_tasks_share_a_client(client: AsyncClient, session: Session) -> None:
    acted = await asyncio.gather(*(client.act(session.id, OBSERVATION, episode=0, step=step) for step in range(32)))
    again = [await client.act(session.id, OBSERVATION, episode=0, step=step) for step in range(32)]
    assert [one.action.tolist() for one in acted] == [one.action.tolist() for one in again]


async def test_a_stream_of_acts_acts_as_the_calls_do(client: AsyncClient, session: Session) -> None:
    async with client.open_act_stream() as acting:
        for step in range(5):
            streamed = await acting.act(session.id, OBSERVATION, episode=1, step=step)
            called = await client.act(session.id, OBSERVATION, episode=1, step=step)
            assert streamed.action.tolist() == called.action.tolist()
        with pytest.raises(InvalidRequest, match=r"expected shape \[4\]"):
            await acting.act(session.id, np.zeros(3), deterministic=True)
        assert (await acting.act(session.id, OBSERVATION, deterministic=True)).policy_version == 1


async def test_a_broken_stream_of_acts_is_taken_up_again(session: Session, target: str) -> None:
    """Broken on purpose: `Unavailable` no longer retried; seen: the act after the cut raised it."""
    async with (
        CuttingProxy(target.removeprefix("grpc://")) as proxy,
        AsyncClient.connect(proxy.url, PATIENT) as client,
        client.open_act_stream() as acting,
    ):
        before = await acting.act(session.id, OBSERVATION, episode=0, step=0)
        proxy.cut()
        after = await acting.act(session.id, OBSERVATION, episode=0, step=0)
        assert after.action.tolist() == before.action.tolist()
        assert proxy.connections == 2


async def test_a_broken_watch_is_taken_up_again(client: AsyncClient, session: Session, target: str) -> None:
    await submit(client, session)
    operation = await client.finetune(session.id, updates=1_000_000)
    async with (
        CuttingProxy(target.removeprefix("grpc://")) as proxy,
        AsyncClient.connect(proxy.url, PATIENT) as watcher,
    ):
        states = []
        async for seen in watcher.watch_operation(operation.id):
            states.append(seen.state)
            if len(states) == 1:
                proxy.cut()
                await client.cancel_operation(operation.id)
        assert states[-1] is OperationState.CANCELLED
        assert proxy.connections == 2


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_deadline_is_kept_where_nobody_answers(scheme: str) -> None:
    """A peer that takes the connection and says nothing, as a stopped one does; and one that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncClient.connect(url) as client:
            with pytest.raises((DeadlineExceeded, Unavailable)):
                await client.get_session("s", timeout_s=0.3)
            with pytest.raises((DeadlineExceeded, Unavailable)):
                async with client.open_act_stream() as acting:
                    await acting.act("s", OBSERVATION, deterministic=True, timeout_s=0.3)
    async with AsyncClient.connect(url) as client:
        with pytest.raises((DeadlineExceeded, Unavailable)):
            await client.get_session("s", timeout_s=0.3)


async def test_a_cancelled_task_leaves_its_client_usable(client: AsyncClient, session: Session) -> None:
    async with client.open_act_stream() as acting:
        cancelled = asyncio.create_task(acting.act(session.id, OBSERVATION, episode=0, step=0))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        wanted = await client.act(session.id, OBSERVATION, episode=0, step=9)
        assert (await acting.act(session.id, OBSERVATION, episode=0, step=9)).action.tolist() == wanted.action.tolist()
