"""What a user meets who errs: a typed error with the service's words, over both transports, and nothing broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mier_client import Client, Conflict, InvalidRequest, NotFound, OperationState, SessionState
from mier_envs.families import FAMILIES
from mier_mujoco.robot import expected_environment
from tests.e2e.conftest import FAMILY


def test_what_does_not_exist_is_named(client: Client) -> None:
    with pytest.raises(NotFound, match=r"SESSION_NOT_FOUND.*'nobody'") as refused:
        client.act("nobody", np.zeros(17), deterministic=True)
    assert refused.value.request_id
    assert refused.value.type == "urn:problem-type:mier:session-not-found"
    with pytest.raises(NotFound, match="CHECKPOINT_NOT_FOUND"):
        client.create_session("cheetah-vel-odd")
    with pytest.raises(NotFound, match="OPERATION_NOT_FOUND"):
        list(client.watch_operation("nothing"))


def test_another_robots_environment_is_refused(client: Client) -> None:
    own = replace(expected_environment(FAMILIES[FAMILY]), dt_s=0.02)
    with pytest.raises(Conflict, match="ENVIRONMENT_MISMATCH") as refused:
        client.create_session(FAMILY, expected_environment=own)
    assert "0.02" in refused.value.detail
    assert "0.05" in refused.value.detail


def test_too_little_data_and_wrong_shapes_are_refused_and_the_session_goes_on(client: Client) -> None:
    session = client.create_session(FAMILY)
    with pytest.raises(Conflict, match="INSUFFICIENT_DATA"):
        client.adapt(session.id)
    with pytest.raises(InvalidRequest, match=r"\[17\]"):
        client.act(session.id, np.zeros(16), deterministic=True)
    with pytest.raises(InvalidRequest, match="episode"):
        client.act(session.id, np.zeros(17))
    assert client.act(session.id, np.zeros(17), deterministic=True).policy_version == 1
    client.delete_session(session.id)


def test_a_paused_session_acts_and_does_not_learn(client: Client) -> None:
    session = client.create_session(FAMILY)
    assert client.pause(session.id).state is SessionState.PAUSED
    with pytest.raises(Conflict, match="SESSION_PAUSED"):
        client.adapt(session.id)
    assert client.act(session.id, np.zeros(17), deterministic=True).policy_version == 1
    assert client.resume(session.id).state is SessionState.ACTIVE
    client.delete_session(session.id)


def test_a_cancelled_fine_tune_publishes_nothing(client: Client) -> None:
    session = client.create_session(FAMILY)
    rng = np.random.default_rng(0)
    client.submit_transitions(
        session.id,
        episode=0,
        first_step=0,
        observation=rng.normal(size=(100, 17)),
        action=rng.uniform(-1, 1, size=(100, 6)),
        reward=rng.normal(size=100),
        next_observation=rng.normal(size=(100, 17)),
        policy_version=0,
    )
    operation = client.finetune(session.id, updates=100_000)
    client.cancel_operation(operation.id)
    last = list(client.watch_operation(operation.id))[-1]
    assert last.state is OperationState.CANCELLED
    assert client.get_session(session.id).active_version == 1
    client.delete_session(session.id)
