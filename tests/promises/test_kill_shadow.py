"""A candidate in shadow: what was seen, the verdict and the swap are one. Killed anywhere between, all are there or
none is, and the next acts go on from there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mier_client.errors import MierError
from mier_client.transport import Page, Transport
from mier_client.values import ActingRules, Session, Shadow, ShadowRule, ShadowState
from tests.contract.conftest import REWARD
from tests.contract.helpers import ALL, CALL_S, LEARN_S, acts, batch, fine_tune, submit
from tests.promises.cycles import Machine
from tests.promises.launcher import Launcher
from tests.promises.test_kill_rollback import connected

_SWAP, _COMMIT = "shadowing._decide", "shadowing.Shadowing._compare"
ACTS = 3


@pytest.mark.parametrize(
    ("point", "done"),
    [
        (f"before swap: {_SWAP}", False),
        (f"after swap: {_SWAP}", False),
        (f"before commit: {_COMMIT}", False),
        (f"after commit: {_COMMIT}", True),
    ],
)
def test_a_kill_at_a_verdict(point: str, done: bool, checkpoints: Path, launcher: Launcher, tmp_path: Path) -> None:
    """Broken on purpose: with the swap in a transaction of its own after the verdict's, a kill between them leaves a
    candidate that has passed and never acts."""
    machine = Machine(launcher, checkpoints, tmp_path / "data")
    assert machine.start(machine.armed(point, 1, True))
    machine.start_worker()
    transport = connected(machine)
    session = transport.create_session(REWARD, 0, None, "", CALL_S, ActingRules(shadow=ShadowRule(ACTS)))
    submit(transport, session, batch(40))
    transport.adapt(session.id, ALL, "", CALL_S)
    assert fine_tune(transport, session, updates=5).result_version == 3
    machine.arm()
    with pytest.raises(MierError):
        _act_until(transport, session, 3)
    transport.close()
    machine.kill_worker()
    machine.end()
    assert machine.killed_itself(), "the moment was not reached"

    assert machine.start()
    transport = connected(machine)
    assert acts(transport, session)[0] == (3 if done else 2)
    assert (_shadow(transport, session).state is ShadowState.PASSED) is done
    _act_until(transport, session, 3)
    found = _shadow(transport, session)
    assert (found.state, found.acts) == (ShadowState.PASSED, ACTS)
    transport.close()
    machine.kill()


def _act_until(transport: Transport, session: Session, version: int) -> None:
    deadline = time.monotonic() + LEARN_S
    while acts(transport, session)[0] != version:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _shadow(transport: Transport, session: Session) -> Shadow:
    (found,) = (v.shadow for v in transport.list_versions(session.id, Page(100, ""), CALL_S)[0] if v.number == 3)
    assert found is not None
    return found
