"""Returns that fell since a fine-tuned version acts roll it back by themselves, over both transports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mier_client.transport import Page, TransitionBatch, Transport
from mier_client.values import OperationState, PolicyVersion, PromotionKind, PromotionRecord, Returns, Session
from tests.contract import tiny
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, acts, batch, fine_tune, rows, submit, wait
from tests.contract.server import Server

GOOD, BAD = 1.0, 0.4
"""Mean rewards of a step."""
BEFORE = 5
"""Episodes of what acted before: as many later ones can tell."""


def episode(number: int, version: int, reward: float) -> TransitionBatch:
    """A whole one, its return near `reward` * HORIZON_STEPS."""
    steps = batch(tiny.HORIZON_STEPS, seed=number, episode=number, version=version)
    noise = np.random.default_rng(number).normal(0.0, 0.05, tiny.HORIZON_STEPS)
    truncated = np.arange(tiny.HORIZON_STEPS) == tiny.HORIZON_STEPS - 1
    return replace(steps, reward=(reward + noise).astype(np.float32), truncated=truncated)


@pytest.fixture
def tuned(transport: Transport, session: Session) -> Session:
    """Version 2 is adapted and has BEFORE good episodes, version 3 is fine-tuned and acts."""
    submit(transport, session, replace(episode(0, 1, GOOD), truncated=np.zeros(tiny.HORIZON_STEPS, np.bool_)))
    transport.adapt(session.id, ALL, "", CALL_S)
    for number in range(1, BEFORE + 1):
        submit(transport, session, episode(number, 2, GOOD))
    assert fine_tune(transport, session, updates=5).result_version == 3
    return session


def report(
    transport: Transport, session: Session, reward: float, count: int = BEFORE, version: int = 3, first: int = 100
) -> None:
    """So many whole episodes of the version, numbered from `first` on."""
    for number in range(first, first + count):
        submit(transport, session, episode(number, version, reward))


def versions(transport: Transport, session: Session) -> list[PolicyVersion]:
    return list(transport.list_versions(session.id, Page(100, ""), CALL_S)[0])


def record(transport: Transport, session: Session) -> list[PromotionRecord]:
    return list(transport.list_promotions(session.id, Page(100, ""), CALL_S)[0])


def test_returns_that_fell_roll_back_and_say_why(transport: Transport, tuned: Session) -> None:
    """Broken on purpose: without the refresh after the commit, the act after the reply is still version 3's."""
    report(transport, tuned, BAD, BEFORE - 1)
    assert acts(transport, tuned)[0] == 3
    submit(transport, tuned, episode(200, 3, BAD))
    assert acts(transport, tuned)[0] == 2
    assert transport.get_session(tuned.id, CALL_S).active_version == 2
    entry = record(transport, tuned)[-1]
    assert (entry.kind, entry.from_version, entry.to_version, entry.who) == (PromotionKind.ROLLBACK, 3, 2, "service")
    assert entry.reason.startswith("returns fell: mean return ")
    assert "in 5 episodes" in entry.reason
    assert "chance 0.004, allowed 0.005" in entry.reason
    report(transport, tuned, BAD, 30, version=2, first=300)  # it was no fine-tune: nothing is rolled back further
    assert transport.get_session(tuned.id, CALL_S).active_version == 2


def test_each_version_tells_its_returns(transport: Transport, tuned: Session) -> None:
    report(transport, tuned, BAD, 2)
    one, two, three = (version.returns for version in versions(transport, tuned))
    assert one is None  # its episode never ended
    for found, mean, count in ((two, GOOD, BEFORE), (three, BAD, 2)):
        assert isinstance(found, Returns)
        assert found.episodes == count
        assert found.mean == pytest.approx(mean * tiny.HORIZON_STEPS, abs=1.0)
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.mean < found.high


def test_returns_as_good_as_before_change_nothing(transport: Transport, tuned: Session) -> None:
    report(transport, tuned, GOOD, 3 * BEFORE)
    assert acts(transport, tuned)[0] == 3


def test_only_whole_episodes_of_one_policy_count(transport: Transport, tuned: Session) -> None:
    """Broken on purpose: where an episode is its last step's, those that a person or both versions drove count."""
    half = tiny.HORIZON_STEPS // 2
    for number in range(100, 110):
        whole = episode(number, 3, BAD)
        submit(transport, tuned, replace(rows(whole, 0, half), policy_version=(number % 2 and 2,)))
        submit(transport, tuned, rows(whole, half, tiny.HORIZON_STEPS))
        cut_short = replace(episode(number + 100, 3, BAD), truncated=np.arange(tiny.HORIZON_STEPS) == half)
        submit(transport, tuned, rows(cut_short, 0, half + 1))
    assert acts(transport, tuned)[0] == 3
    assert versions(transport, tuned)[2].returns is None


def test_steps_that_come_in_any_order_and_again_make_one_episode(transport: Transport, tuned: Session) -> None:
    """Broken on purpose: where only a batch with the end in it is looked at, this episode is never whole."""
    whole, half = episode(100, 3, BAD), tiny.HORIZON_STEPS // 2
    submit(transport, tuned, rows(whole, half, tiny.HORIZON_STEPS))
    assert versions(transport, tuned)[2].returns is None
    submit(transport, tuned, rows(whole, 0, half))
    submit(transport, tuned, whole)
    found = versions(transport, tuned)[2].returns
    assert found is not None
    assert (found.episodes, found.low, found.high) == (1, None, None)
    assert found.mean == pytest.approx(whole.reward.astype(float).sum())


def test_a_fall_ends_an_episode(transport: Transport, tuned: Session) -> None:
    fallen = rows(episode(100, 3, BAD), 0, 4)
    submit(transport, tuned, replace(fallen, terminated=np.arange(4) == 3))
    found = versions(transport, tuned)[2].returns
    assert found is not None
    assert found.mean == pytest.approx(4 * BAD, abs=0.5)


def test_what_a_person_decided_stays(transport: Transport, tuned: Session) -> None:
    transport.pin(tuned.id, None, "demonstration", "", CALL_S)
    report(transport, tuned, BAD)
    assert transport.get_session(tuned.id, CALL_S).active_version == 3
    transport.unpin(tuned.id, "over", "", CALL_S)
    transport.promote(tuned.id, 2, "compare", "", CALL_S)
    transport.promote(tuned.id, 3, "I know better", "", CALL_S)
    for number in range(200, 230):
        submit(transport, tuned, episode(number, 3, BAD))
    assert acts(transport, tuned)[0] == 3


def test_a_fine_tune_of_the_worse_weights_is_cancelled(transport: Transport, tuned: Session) -> None:
    """One that was asked for afterwards begins at what acts."""
    report(transport, tuned, BAD, BEFORE - 1)
    running = transport.finetune(tuned.id, 100_000, 0, "", CALL_S)
    submit(transport, tuned, episode(200, 3, BAD))
    assert wait(transport, running).state is OperationState.CANCELLED
    after = wait(transport, transport.finetune(tuned.id, 5, 0, "", CALL_S))
    assert (after.start_version, after.result_version) == (2, 4)
    assert acts(transport, tuned)[0] == 4


@pytest.fixture(scope="module")
def without(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(checkpoints, tmp_path_factory.mktemp("without") / "data", "--no-automatic-rollback")
    yield running
    assert running.stop() == 0


def test_it_can_be_switched_off(without: Server) -> None:
    transport = connect(without, "grpc")
    session = transport.create_session(REWARD, 0, None, "", CALL_S)
    for number in range(BEFORE):
        submit(transport, session, episode(number, 1, GOOD))
    assert fine_tune(transport, session, updates=5).result_version == 2
    report(transport, session, BAD, 2 * BEFORE, version=2)
    assert acts(transport, session)[0] == 2
    told = versions(transport, session)[1].returns
    assert told is not None
    assert told.episodes == 2 * BEFORE
    transport.close()
