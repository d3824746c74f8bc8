"""Words that many tests of the contract use."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mier_client.errors import MierError
from mier_client.transport import ActQuery, TransitionBatch, Transport
from mier_client.values import Operation, OperationState, Session, Submitted, Window
from tests.contract import tiny

CALL_S = 30.0
LEARN_S = 150.0
"""For what waits for a worker, which starts with loading torch and has the lowest priority."""
MEAN = ActQuery(deterministic=True, episode=None, step=None)
ALL = Window()
OBSERVATION = np.array([0.3, -0.2, 0.5, 1.0], np.float32)


def batch(count: int = 40, seed: int = 3, episode: int = 0, first_step: int = 0, version: int = 1) -> TransitionBatch:
    """`count` steps of one episode."""
    return TransitionBatch(
        episode=episode,
        first_step=first_step,
        terminated=np.zeros(count, np.bool_),
        truncated=np.zeros(count, np.bool_),
        policy_version=(version,),
        **tiny.arrays(count, seed),
    )


def rows(whole: TransitionBatch, start: int, stop: int) -> TransitionBatch:
    """Steps start..stop-1 of a batch."""
    part = slice(start, stop)
    return replace(
        whole,
        first_step=whole.first_step + start,
        observation=whole.observation[part],
        action=whole.action[part],
        reward=whole.reward[part],
        next_observation=whole.next_observation[part],
        terminated=whole.terminated[part],
        truncated=whole.truncated[part],
    )


def submit(transport: Transport, session: Session, steps: TransitionBatch, key: str = "") -> Submitted:
    return transport.submit_transitions(session.id, steps, key, CALL_S)


def wait(transport: Transport, operation: Operation, within_s: float = LEARN_S) -> Operation:
    """The operation in its final state."""
    *_, last = transport.watch_operation(operation.id, within_s)
    assert last.state.final
    return last


def fine_tune(transport: Transport, session: Session, updates: int = 30, seed: int = 0) -> Operation:
    """A fine-tune that succeeded."""
    done = wait(transport, transport.finetune(session.id, updates, seed, "", CALL_S))
    assert done.state is OperationState.SUCCEEDED, done
    return done


def waiting_operation(transport: Transport, checkpoint: str) -> str:
    """One that stays queued where nobody fine-tunes."""
    session = transport.create_session(checkpoint, 0, None, "", CALL_S)
    submit(transport, session, batch(40))
    return transport.finetune(session.id, 1, 0, "", CALL_S).id


def acts(transport: Transport, session: Session) -> tuple[int, str, tuple[float, ...]]:
    """Which version acts, its weights' hash, and its mean action."""
    acted = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    return acted.policy_version, acted.weights_hash, tuple(acted.action.tolist())


def mierctl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command as an operator runs it."""
    return subprocess.run(
        [sys.executable, "-m", "mier_service.mierctl", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def refused(reason: str, *words: str) -> pytest.RaisesExc[MierError]:
    """Expects a refusal with this reason whose detail has all these words."""

    def fits(error: MierError) -> bool:
        missing = [word for word in words if word not in error.detail]
        assert error.reason == reason, error
        assert not missing, f"{missing} not in {error.detail!r}"
        assert error.request_id
        return True

    return pytest.RaisesExc(MierError, check=fits)
