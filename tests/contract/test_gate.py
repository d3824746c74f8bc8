"""A fine-tuned version acts only if the gate promotes it, and says over both transports what the gate saw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mier.calibration import GateThresholds
from mier.types import Varies
from mier_client.transport import Page, Transport
from mier_client.values import PolicyVersion, Promotion, PromotionRecord, Session
from tests.contract import tiny
from tests.contract.conftest import connect
from tests.contract.helpers import ALL, CALL_S, acts, batch, fine_tune, submit
from tests.contract.server import Server

BOLD, CONTRARY, CAUTIOUS = "tiny-bold", "tiny-contrary", "tiny-cautious"
"""Gates that promote the least gain, that find the opposite good, and that are never sure enough."""


@pytest.fixture(scope="module")
def gated_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gated")
    for name, margin, sign in ((BOLD, 0.0, 1.0), (CONTRARY, 0.0, -1.0), (CAUTIOUS, 1e6, 1.0)):
        gate = GateThresholds(margin, -margin, 1)
        # At a rate at which the policy moves.
        tiny.write(folder, name, Varies.DYNAMICS, seed=1, gate=gate, gate_sign=sign, learning_rate=0.03)
    return folder


@pytest.fixture(scope="module")
def gated(gated_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(gated_checkpoints, tmp_path_factory.mktemp("gated-service") / "data")
    yield running
    assert running.stop() == 0


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, gated: Server) -> Iterator[Transport]:
    made = connect(gated, request.param)
    yield made
    made.close()


def _ready(transport: Transport, checkpoint: str, count: int = 120) -> Session:
    """With transitions and an adapted version 2, which acts."""
    session = transport.create_session(checkpoint, 0, None, "", CALL_S)
    submit(transport, session, batch(count))
    transport.adapt(session.id, ALL, "", CALL_S)
    return session


def _versions(transport: Transport, session: Session) -> list[PolicyVersion]:
    return list(transport.list_versions(session.id, Page(100, ""), CALL_S)[0])


def _record(transport: Transport, session: Session) -> list[PromotionRecord]:
    return list(transport.list_promotions(session.id, Page(100, ""), CALL_S)[0])


@pytest.mark.parametrize(
    ("checkpoint", "promotion"),
    [
        (BOLD, Promotion.PROMOTED),
        (CONTRARY, Promotion.REJECTED),
        (CAUTIOUS, Promotion.INSUFFICIENT_DATA),
    ],
)
def test_what_the_gate_promotes_acts_and_nothing_else_does(
    transport: Transport, checkpoint: str, promotion: Promotion
) -> None:
    """Broken on purpose: where `publish` swaps whatever the gate said, what was rejected acts."""
    session = _ready(transport, checkpoint)
    number = fine_tune(transport, session, updates=45).result_version
    version = _versions(transport, session)[-1]
    gate = version.gate
    assert gate is not None
    assert (version.number, version.promotion) == (number, promotion)
    assert (gate.incumbent_version, gate.steps) == (2, tiny.HORIZON_STEPS)
    assert None not in (gate.lowest_difference, gate.highest_difference, gate.candidate_return, gate.incumbent_return)
    acting = number if promotion is Promotion.PROMOTED else 2
    assert acts(transport, session)[0] == acting
    last = _record(transport, session)[-1]
    assert last.to_version == acting
    assert (f"gate: {gate.reason}" in last.reason) is (acting == number)


def test_what_is_not_promoted_may_be_promoted_by_hand(transport: Transport) -> None:
    session = _ready(transport, CAUTIOUS)
    before = acts(transport, session)
    fine_tune(transport, session, updates=45)
    version = _versions(transport, session)[-1]
    assert acts(transport, session) == before
    transport.promote(session.id, version.number, "seen to walk", "", CALL_S)
    assert acts(transport, session)[:2] == (version.number, version.weights_hash)
    assert _versions(transport, session)[-1].gate == version.gate


def test_too_few_transitions_for_the_gate_are_said(transport: Transport) -> None:
    session = _ready(transport, BOLD, count=60)
    before = acts(transport, session)
    fine_tune(transport, session, updates=45)
    version = _versions(transport, session)[-1]
    assert version.promotion is Promotion.INSUFFICIENT_DATA
    assert version.gate is not None
    assert "at least 20 held-out transitions, came 12" in version.gate.reason
    assert version.gate.lowest_difference is version.gate.promote_above is None
    assert acts(transport, session) == before


def test_both_transports_tell_the_same(gated: Server) -> None:
    http, grpc = connect(gated, "http"), connect(gated, "grpc")
    session = _ready(http, CAUTIOUS)
    fine_tune(http, session, updates=45)
    one, other = (_versions(each, session)[-1].gate for each in (http, grpc))
    assert one == other is not None
    http.close()
    grpc.close()


def test_without_the_gate_each_version_acts(gated_checkpoints: Path, tmp_path: Path) -> None:
    running = Server(gated_checkpoints, tmp_path / "data", "--no-gate")
    transport = connect(running, "grpc")
    session = _ready(transport, CAUTIOUS)
    number = fine_tune(transport, session, updates=45).result_version
    version = _versions(transport, session)[-1]
    assert (version.promotion, version.gate) == (Promotion.UNGATED, None)
    assert acts(transport, session)[0] == number
    transport.close()
    assert running.stop() == 0
