"""Transitions over both transports: durable, counted once, refused whole when something is wrong with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mier_client.errors import InvalidRequest
from mier_client.transport import TransitionBatch, Transport
from mier_client.values import Session, Submitted
from tests.contract.helpers import CALL_S, batch, refused, rows, submit


def test_steps_are_stored(transport: Transport, session: Session) -> None:
    assert submit(transport, session, batch(30)) == Submitted(30, 0, 30)
    assert submit(transport, session, batch(5, episode=1)) == Submitted(5, 0, 35)
    assert transport.get_session(session.id, CALL_S).transitions_count == 35


def test_an_identical_resend_counts_once(transport: Transport, session: Session) -> None:
    steps = batch(20)
    submit(transport, session, steps)
    assert submit(transport, session, steps) == Submitted(0, 20, 20)


def test_overlapping_batches_store_what_is_new(transport: Transport, session: Session) -> None:
    whole = batch(30)
    submit(transport, session, rows(whole, 5, 10))
    submit(transport, session, rows(whole, 15, 20))
    assert submit(transport, session, whole) == Submitted(20, 10, 30)
    assert submit(transport, session, rows(whole, 8, 17)) == Submitted(0, 9, 30)


def test_a_conflicting_resend_is_refused_whole(transport: Transport, session: Session) -> None:
    whole = batch(30)
    submit(transport, session, rows(whole, 0, 10))
    other = replace(whole, reward=whole.reward.copy())
    other.reward[7] += 1.0
    with refused("TRANSITION_CONFLICT", "step 7", "episode 0"):
        submit(transport, session, other)
    assert transport.get_session(session.id, CALL_S).transitions_count == 10
    with refused("TRANSITION_CONFLICT", "step 0"):
        submit(transport, session, replace(rows(whole, 0, 10), policy_version=(0,)))


def test_each_step_may_name_its_version(transport: Transport, session: Session) -> None:
    assert submit(transport, session, replace(batch(4), policy_version=(1, 0, 1, 1))).stored == 4
    with refused("INVALID_ARGUMENT", "policy_version", "1 or 4", "3"):
        submit(transport, session, replace(batch(4), policy_version=(1, 1, 1)))
    with refused("INVALID_ARGUMENT", "policy_version", "9"):
        submit(transport, session, replace(batch(4), policy_version=(9,)))


def _with(name: str, value: object) -> TransitionBatch:
    return replace(batch(10), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (_with("observation", np.zeros((10, 3), np.float32)), ("observation", "[10, 4]", "[10, 3]")),
        (_with("next_observation", np.zeros((9, 4), np.float32)), ("next_observation", "[10, 4]", "[9, 4]")),
        (_with("action", np.zeros((10, 5), np.float32)), ("action", "[10, 2]", "[10, 5]")),
        (_with("reward", np.zeros(9, np.float32)), ("reward", "[10]", "[9]")),
        (_with("terminated", np.zeros(3, np.bool_)), ("terminated", "[10]", "[3]")),
        (_with("action", np.full((10, 2), 1.5, np.float32)), ("push_x", "1.5", "clipped")),
        (_with("episode", -1), ("episode",)),
        (_with("first_step", 2**31 - 5), ("first_step",)),
    ],
)
def test_what_does_not_fit_is_refused(
    transport: Transport, session: Session, steps: TransitionBatch, words: tuple[str, ...]
) -> None:
    with refused("INVALID_ARGUMENT", *words):
        submit(transport, session, steps)
    assert transport.get_session(session.id, CALL_S).transitions_count == 0


def test_no_steps_are_refused(transport: Transport, session: Session) -> None:
    with refused("INVALID_ARGUMENT", "observation"):
        submit(transport, session, rows(batch(3), 0, 0))


def test_an_unknown_session_is_refused(transport: Transport, session: Session) -> None:
    with refused("SESSION_NOT_FOUND"):
        submit(transport, replace(session, id="nobody"), batch(3))


@pytest.mark.parametrize("steps", [6_000, 40_000])
def test_too_much_at_once_is_refused_and_not_tried_again(transport: Transport, session: Session, steps: int) -> None:
    """Whether the service says so, or gRPC where it is more than twice the limit. Once gRPC's own words were taken for
    overload, which the client tries again until its deadline."""
    with pytest.raises(InvalidRequest, match="BODY_TOO_LARGE"):
        submit(transport, session, batch(steps))
