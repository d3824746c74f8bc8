"""Candidates act in shadow before they act, where the session asks for it, over both transports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mier.types import Varies
from mier_client.transport import ActQuery, Page, Transport
from mier_client.values import (
    ActingRules,
    PolicyVersion,
    Promotion,
    PromotionRecord,
    Session,
    Shadow,
    ShadowRule,
    ShadowState,
)
from tests.contract import tiny
from tests.contract.conftest import connect
from tests.contract.helpers import ALL, CALL_S, LEARN_S, OBSERVATION, acts, batch, fine_tune, refused, submit
from tests.contract.server import Server

LIVELY = "tiny-lively"
ACTS = 8
SPAN = np.array([2.0, 4.0])
"""Of the actions' bounds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lively")
    tiny.write(made, LIVELY, Varies.REWARD, learning_rate=0.01)  # at which the policy moves
    return made


@pytest.fixture(scope="module")
def shadowing(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(folder, tmp_path_factory.mktemp("shadow-service") / "data")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log()


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, shadowing: Server) -> Iterator[Transport]:
    made = connect(shadowing, request.param)
    yield made
    made.close()


def in_shadow(transport: Transport, rule: ShadowRule) -> Session:
    """Version 2 acts, the fine-tuned 3 acts in its shadow."""
    session = transport.create_session(LIVELY, 7, None, "", CALL_S, ActingRules(shadow=rule))
    assert session.rules.shadow == rule
    submit(transport, session, batch(40))
    transport.adapt(session.id, ALL, "", CALL_S)
    assert fine_tune(transport, session, updates=45).result_version == 3
    return session


def versions(transport: Transport, session: Session) -> list[PolicyVersion]:
    return list(transport.list_versions(session.id, Page(100, ""), CALL_S)[0])


def record(transport: Transport, session: Session) -> list[PromotionRecord]:
    return list(transport.list_promotions(session.id, Page(100, ""), CALL_S)[0])


def until(transport: Transport, session: Session, reached: Callable[[Shadow], bool]) -> PolicyVersion:
    """Version 3 once its shadow is so; nothing tells when, so it is asked again and again."""
    deadline = time.monotonic() + LEARN_S
    while True:
        version = versions(transport, session)[2]
        assert version.shadow is not None
        if reached(version.shadow):
            return version
        assert time.monotonic() < deadline, version
        time.sleep(0.02)


def ended(shadow: Shadow) -> bool:
    return shadow.state is not ShadowState.RUNNING


def test_a_candidate_acts_in_shadow_before_it_acts(transport: Transport) -> None:
    """Broken on purpose: where `publish` swaps although the session has a rule, version 3 acts at once; where what was
    answered is not noted, it never does."""
    session = in_shadow(transport, ShadowRule(ACTS))
    waiting = versions(transport, session)[2]
    assert waiting.promotion is Promotion.INSUFFICIENT_DATA
    assert waiting.shadow == Shadow(ShadowState.RUNNING, 0, ACTS, 2)
    before = acts(transport, session)
    for step in range(1, ACTS):
        action = acts(transport, session)
        assert action == before, f"nothing of the candidate is sent at step {step}"
    assert before[0] == 2
    version = until(transport, session, ended)
    after = acts(transport, session)
    assert after[0] == 3
    found = version.shadow
    assert found is not None
    assert (found.state, found.acts, version.promotion) == (ShadowState.PASSED, ACTS, Promotion.UNGATED)
    difference = (np.abs(np.array(after[2]) - np.array(before[2])) / SPAN).max()
    assert difference > 1e-4
    for seen in (found.mean_difference, found.quantile_difference, found.largest_difference):
        assert seen == pytest.approx(difference, rel=1e-3)
    assert found.at_limit == found.acting_at_limit == 0.0
    last = record(transport, session)[-1]
    assert (last.from_version, last.to_version, last.who) == (2, 3, "service")
    assert last.reason.endswith(found.reason)
    assert found.reason.startswith(f"shadow: {ACTS} acts, differences of ")


def test_one_that_differs_too_much_is_rejected_at_once(transport: Transport) -> None:
    session = in_shadow(transport, ShadowRule(1000, 1e-5))
    acts(transport, session)
    version = until(transport, session, ended)
    assert version.promotion is Promotion.REJECTED
    assert version.shadow is not None
    assert version.shadow.state is ShadowState.REJECTED
    assert version.shadow.acts == 1
    assert version.shadow.reason.endswith("1e-05 allowed")
    assert acts(transport, session)[0] == 2
    transport.promote(session.id, 3, "by hand all the same", "", CALL_S)
    assert acts(transport, session)[0] == 3


def test_exploring_acts_and_batches_count(transport: Transport) -> None:
    """With the same noise for both: else the difference would be the noise's."""
    session = in_shadow(transport, ShadowRule(ACTS))
    before = [transport.act(session.id, OBSERVATION, ActQuery(False, 0, step), CALL_S) for step in range(ACTS)]
    found = until(transport, session, ended).shadow
    after = [transport.act(session.id, OBSERVATION, ActQuery(False, 0, step), CALL_S) for step in range(ACTS)]
    assert {action.policy_version for action in before} == {2}
    differences = [(np.abs(a.action - b.action) / SPAN).max() for a, b in zip(after, before, strict=True)]
    assert found is not None
    assert found.mean_difference == pytest.approx(np.mean(differences), rel=1e-3)
    assert found.largest_difference == pytest.approx(max(differences), rel=1e-3)


def test_something_else_that_comes_to_act_ends_it(transport: Transport) -> None:
    session = in_shadow(transport, ShadowRule(ACTS))
    transport.pin(session.id, None, "demonstration", "", CALL_S)
    for _ in range(ACTS):
        acts(transport, session)
    version = until(transport, session, ended)
    assert version.promotion is Promotion.INSUFFICIENT_DATA
    assert version.shadow is not None
    assert version.shadow.state is ShadowState.SUPERSEDED
    assert version.shadow.reason.startswith("version 2 is pinned; shadow: 8 acts")
    other = in_shadow(transport, ShadowRule(ACTS))
    transport.promote(other.id, 3, "now", "", CALL_S)
    found = versions(transport, other)[2].shadow
    assert found is not None
    assert (found.state, found.reason) == (ShadowState.SUPERSEDED, "version 3 acts by now")


def test_a_new_context_of_the_same_weights_does_not_end_it(transport: Transport) -> None:
    session = in_shadow(transport, ShadowRule(ACTS))
    assert transport.adapt(session.id, ALL, "", CALL_S).active_version.number == 4
    for _ in range(ACTS):
        acts(transport, session)
    until(transport, session, ended)
    assert acts(transport, session)[0] == 3


def test_a_paused_session_decides_once_it_is_resumed(transport: Transport) -> None:
    session = in_shadow(transport, ShadowRule(ACTS))
    transport.pause(session.id, "", CALL_S)
    for _ in range(ACTS):
        acts(transport, session)
    until(transport, session, lambda shadow: shadow.acts == ACTS)
    assert acts(transport, session)[0] == 2
    transport.resume(session.id, "", CALL_S)
    acts(transport, session)
    assert until(transport, session, ended).shadow is not None
    assert acts(transport, session)[0] == 3


@pytest.mark.parametrize("rule", [ShadowRule(0), ShadowRule(100_001), ShadowRule(10, 0.0), ShadowRule(10, 1.5)])
def test_rules_that_make_no_sense_are_refused(transport: Transport, rule: ShadowRule) -> None:
    with refused("INVALID_ARGUMENT", "shadow"):
        transport.create_session(LIVELY, 7, None, "", CALL_S, ActingRules(shadow=rule))


def test_it_goes_on_after_a_restart(folder: Path, tmp_path: Path) -> None:
    """Broken on purpose: with the evidence in memory alone, the second service counts from zero."""
    first = Server(folder, tmp_path / "data")
    transport = connect(first, "http")
    session = in_shadow(transport, ShadowRule(ACTS))
    for _ in range(ACTS // 2):
        acts(transport, session)
    until(transport, session, lambda shadow: shadow.acts == ACTS // 2)
    transport.close()
    assert first.stop() == 0
    second = Server(folder, tmp_path / "data")
    transport = connect(second, "grpc")
    for _ in range(ACTS // 2):
        assert acts(transport, session)[0] == 2
    found = until(transport, session, ended).shadow
    assert found is not None
    assert (found.state, found.acts) == (ShadowState.PASSED, ACTS)
    assert acts(transport, session)[0] == 3
    transport.close()
    assert second.stop() == 0
