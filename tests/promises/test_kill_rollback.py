"""Returns that fell: the step that tells and the rollback are one. Killed anywhere between them, both are there or
neither is, and the same step sent again rolls back."""

from __future__ import annotations

from pathlib import Path

import pytest

from mier_client.transport import Page, Transport
from mier_client.values import PromotionKind, Session
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, acts, fine_tune, submit
from tests.contract.test_regression import BAD, BEFORE, GOOD, episode
from tests.promises.cycles import Machine
from tests.promises.launcher import Launcher
from tests.promises.ledger import UNANSWERED

_SWAP, _COMMIT = "regression.roll_back_if_fallen", "recording.Recording._submit"
LAST = episode(200, 2, BAD)


@pytest.mark.parametrize(
    ("point", "done"),
    [
        (f"before swap: {_SWAP}", False),
        (f"after swap: {_SWAP}", False),
        (f"before commit: {_COMMIT}", False),
        (f"after commit: {_COMMIT}", True),
    ],
)
def test_a_kill_at_a_rollback(point: str, done: bool, checkpoints: Path, launcher: Launcher, tmp_path: Path) -> None:
    """Broken on purpose: with the decision in a transaction of its own after the step's, a kill between them leaves
    version 2 acting, and the step sent again is a duplicate that decides nothing."""
    machine = Machine(launcher, checkpoints, tmp_path / "data")
    assert machine.start(machine.armed(point, 1, True))
    machine.start_worker()
    transport = connected(machine)
    session = transport.create_session(REWARD, 0, None, "", CALL_S)
    for number in range(BEFORE):
        submit(transport, session, episode(number, 1, GOOD))
    assert fine_tune(transport, session, updates=5).result_version == 2
    for number in range(100, 100 + BEFORE - 1):
        submit(transport, session, episode(number, 2, BAD))
    machine.arm()
    with pytest.raises(UNANSWERED):
        submit(transport, session, LAST)
    transport.close()
    machine.kill_worker()
    machine.end()
    assert machine.killed_itself(), "the moment was not reached"

    assert machine.start()
    transport = connected(machine)
    assert acts(transport, session)[0] == (1 if done else 2)
    again = submit(transport, session, LAST)
    assert again.stored == (0 if done else LAST.reward.size)
    assert acts(transport, session)[0] == 1
    assert _rollbacks(transport, session) == [(2, 1)]
    transport.close()
    machine.kill()


def connected(machine: Machine) -> Transport:
    assert machine.at is not None
    return connect(machine.at, "grpc")


def _rollbacks(transport: Transport, session: Session) -> list[tuple[int, int]]:
    record = transport.list_promotions(session.id, Page(100, ""), CALL_S)[0]
    return [(entry.from_version, entry.to_version) for entry in record if entry.kind is PromotionKind.ROLLBACK]
