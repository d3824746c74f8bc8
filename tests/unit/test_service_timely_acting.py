"""Acting within a budget, by clocks of its own: what counts as late, and what answers then."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from mier_service.acting.acting import ActCall, Acting, Action
from mier_service.acting.budget import Budget
from mier_service.acting.ready_sessions import ReadySessions
from mier_service.acting.timely import TimelyActing
from mier_service.data.files import ContentFiles
from mier_service.data.storage import Storage
from mier_service.errors import Reason, ServiceError
from mier_service.offload import BoundedPool
from mier_service.values import ActingRules, FallbackKind, FallbackReason, FallbackValue
from tests.unit.test_service_acting import SlowFiles, versions

CALL = ActCall("s", np.zeros(4, np.float32), deterministic=True)
HOLD = ActingRules(fallback=FallbackKind.HOLD_ZERO)


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclasses.dataclass
class Scene:
    """A session's acting, with all that it is made of."""

    storage: Storage
    pool: BoundedPool
    clock: Clock
    fallbacks: list[FallbackValue]

    def acting(self, rules: ActingRules, files: ContentFiles | None = None) -> TimelyActing:
        versions(self.storage, rules)
        plain = Acting(self.storage.store, files or self.storage.onnx, ReadySessions(10, 4), self.pool)
        plain.warm()
        return TimelyActing(plain, self.pool, self.clock, self.clock, self.fallbacks.append)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    storage = Storage(tmp_path / "data", connections=4, clock=lambda: 0.0)
    storage.prepare()
    made = Scene(storage, BoundedPool("store", 2, 8), Clock(), [])
    yield made
    made.pool.close()
    storage.close()


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return anyio.run(work)


def with_budget(clock: Clock, budget_ms: float, call: ActCall = CALL) -> ActCall:
    return call._replace(budget=Budget.of(clock(), budget_ms))


def answered(action: Action) -> tuple[FallbackKind, FallbackReason] | None:
    return None if action.fallback is None else (action.fallback.kind, action.fallback.reason)


def test_a_policy_that_takes_longer_than_was_left_is_late(scene: Scene) -> None:
    """Broken on purpose: without the look at the time after a policy has chosen; seen: no fallback."""
    timely = scene.acting(HOLD)

    async def work() -> tuple[Action, Action]:
        first = await timely.act(CALL)
        active = timely._acting.ready("s")
        assert active is not None
        choose = active.policy.act_one

        def slowly(observation: np.ndarray, context: np.ndarray, noise: np.ndarray) -> np.ndarray:
            scene.clock.now_s += 0.03
            return choose(observation, context, noise)

        active.policy.act_one = slowly  # type: ignore[method-assign]
        return first, await timely.act(with_budget(scene.clock, 20.0))

    first, late = run(work)
    assert answered(first) is None
    assert answered(late) == (FallbackKind.HOLD_ZERO, FallbackReason.BUSY)
    assert scene.fallbacks == [late.fallback]


@pytest.mark.parametrize("kind", [None, *FallbackKind])
def test_what_cannot_be_read_is_answered_by_the_fallback(scene: Scene, kind: FallbackKind | None) -> None:
    """Only within a budget, which says that the caller must have an action: otherwise it is refused as ever."""
    timely = scene.acting(ActingRules(fallback=kind))
    for file in (scene.storage.onnx._folder).iterdir():
        file.write_bytes(b"damaged")
    expected = FallbackKind.HOLD_ZERO if kind is FallbackKind.HOLD_LAST else kind

    async def work() -> None:
        with pytest.raises(ServiceError) as told:
            await TimelyActing(fresh, scene.pool).act(CALL)
        assert told.value.reason is Reason.VERSION_UNUSABLE
        call = with_budget(scene.clock, 30_000.0)
        if kind is None:
            with pytest.raises(ServiceError) as told:
                await timely.act(call)
            assert told.value.reason is Reason.VERSION_UNUSABLE
        else:
            action = await timely.act(call)
            if kind in (FallbackKind.HOLD_LAST, FallbackKind.HOLD_ZERO):
                assert answered(action) == (expected, FallbackReason.UNAVAILABLE)
            else:  # its base policy was loaded before, and so the version on the same weights is at hand
                assert action.policy_version == 1

    fresh = Acting(scene.storage.store, scene.storage.onnx, ReadySessions(10, 4), scene.pool)
    run(work)


def test_waiting_does_not_make_an_observation_too_old(scene: Scene) -> None:
    """Broken on purpose: judging its age when the answer is chosen; seen: a refusal in the place of the fallback."""
    files = SlowFiles(scene.storage.onnx._folder)
    rules = ActingRules(fallback=FallbackKind.HOLD_ZERO, max_observation_age_ms=100.0)
    timely = scene.acting(rules, files)
    seen = CALL._replace(observed_at_unix_us=int(1e6 * (scene.clock() - 0.06)))

    async def work() -> Action:
        call = asyncio.create_task(timely.act(with_budget(scene.clock, 300.0, seen)))
        await asyncio.to_thread(files.reached.wait)
        scene.clock.now_s += 0.25
        late = await call
        files.gate.set()
        await timely._acting.load("s")
        return late

    assert answered(run(work)) == (FallbackKind.HOLD_ZERO, FallbackReason.LOADING)


@pytest.mark.parametrize(("age_ms", "is_refused"), [(99.0, False), (101.0, True), (-99.0, False), (-101.0, True)])
def test_an_age_is_told_by_the_clock(scene: Scene, age_ms: float, is_refused: bool) -> None:
    timely = scene.acting(ActingRules(max_observation_age_ms=100.0))
    seen = CALL._replace(observed_at_unix_us=round(1e6 * scene.clock() - 1e3 * age_ms))

    async def work() -> Reason | None:
        try:
            await timely.act(seen)
        except ServiceError as error:
            return error.reason
        return None

    assert run(work) is (Reason.OBSERVATION_TOO_OLD if is_refused else None)


def test_a_batch_that_waits_for_a_thread_is_answered_in_time(scene: Scene) -> None:
    """More rows than run on the event loop, and all threads taken."""
    timely = scene.acting(HOLD)

    async def work() -> list[Action | ServiceError]:
        await timely.act(CALL)
        gate = threading.Event()
        taken = [asyncio.create_task(scene.pool.run(gate.wait, 30.0)) for _ in range(2)]
        await asyncio.sleep(0)
        try:
            return await timely.act_batch([with_budget(scene.clock, 100.0)] * 40)
        finally:
            gate.set()
            await asyncio.gather(*taken)

    outcomes = run(work)
    assert {answered(one) for one in outcomes} == {(FallbackKind.HOLD_ZERO, FallbackReason.BUSY)}
