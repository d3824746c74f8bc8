"""Remote equals local: the same ONNX policy and seeds give the same actions, one by one, wherever they run."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from mier import onnx_policy
from mier.checkpoint import Checkpoint
from mier.exploration import noise
from mier.session import Session as LocalSession
from mier.weights import PolicyWeights
from mier_client import Client, InvalidRequest
from mier_envs.families import FAMILIES
from mier_mujoco.episodes import Chosen, Episode, FloatArray, run_episode
from tests.e2e.conftest import FAMILY

SEED = 11
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def local_policy(checkpoint: Checkpoint) -> ort.InferenceSession:
    onnx = onnx_policy.export(PolicyWeights.of(checkpoint.agent), checkpoint.agent)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("deterministic", [True, False], ids=["deterministic", "exploring"])
def test_a_closed_loop_is_the_same_near_and_far(
    client: Client, checkpoint: Checkpoint, local_policy: ort.InferenceSession, deterministic: bool
) -> None:
    session = client.create_session(FAMILY, seed=SEED)
    action_dim = session.environment.action_dim

    def act_here(observation: FloatArray, episode: int, step: int, deterministic: bool) -> Chosen:
        drawn = np.zeros(action_dim, np.float32) if deterministic else noise(SEED, episode, step, action_dim)
        feed = {
            "observation": observation[None],
            "context": checkpoint.agent.prior_context.numpy()[None],
            "noise": drawn[None],
        }
        (action,) = local_policy.run(["action"], feed)
        return Chosen(np.asarray(action, np.float32)[0], 1)

    def act_there(observation: FloatArray, episode: int, step: int, deterministic: bool) -> Chosen:
        acted = client.act(session.id, observation, deterministic=deterministic, episode=episode, step=step)
        return Chosen(acted.action, acted.policy_version)

    def loop(act: type[object] | object) -> Episode:
        family = FAMILIES[FAMILY]
        environment = family.make(family.test_tasks[3])
        try:
            return run_episode(
                environment,
                act,  # type: ignore[arg-type]
                environment_seed=5,
                episode=4,
                deterministic=deterministic,
                on_step=lambda: None,
            )
        finally:
            environment.close()

    here, there = loop(act_here), loop(act_there)
    np.testing.assert_array_equal(there.action, here.action)
    np.testing.assert_array_equal(there.reward, here.reward)
    assert set(there.policy_version) == {1}
    client.delete_session(session.id)


@pytest.mark.parametrize("reward_shift", [0.0, -1.5], ids=["like-training", "out-of-distribution"])
def test_recorded_observations_give_the_action_of_the_session_loop_in_process(
    client: Client, checkpoint: Checkpoint, reward_shift: float
) -> None:
    """The service (ONNX Runtime) against `mier.session` (torch), before and after an adaptation."""
    recorded = checkpoint.relabel_buffer.transitions
    shown = recorded.observation[:: recorded.size // 40].numpy()
    window = recorded.rows(slice(0, 200))
    window = window._replace(reward=window.reward + reward_shift)
    session, local = client.create_session(FAMILY, seed=SEED), LocalSession(checkpoint, SEED)
    for stage in ("prior", "adapted"):
        if stage == "adapted":
            local.observe(window)
            local.adapt()
            client.submit_transitions(
                session.id,
                episode=0,
                first_step=0,
                observation=window.observation.numpy(),
                action=window.action.numpy(),
                reward=window.reward.numpy(),
                next_observation=window.next_observation.numpy(),
                policy_version=0,
            )
            adapted = client.adapt(session.id)
            np.testing.assert_allclose(adapted.model_context.values, local.model_context, atol=TOLERANCE)
        for step, observation in enumerate(shown):
            for deterministic in (True, False):
                with torch.inference_mode():
                    expected = local.act(observation, episode=2, step=step, deterministic=deterministic)
                acted = client.act(session.id, observation, deterministic=deterministic, episode=2, step=step)
                np.testing.assert_allclose(acted.action, expected, atol=TOLERANCE, rtol=0)
    client.delete_session(session.id)


def test_a_stream_of_acts_equals_single_calls_and_outlives_a_refusal(client: Client, checkpoint: Checkpoint) -> None:
    session = client.create_session(FAMILY, seed=SEED)
    observations = checkpoint.relabel_buffer.transitions.observation[:20].numpy()
    with client.open_act_stream() as acting:
        for step, observation in enumerate(observations):
            streamed = acting.act(session.id, observation, episode=1, step=step)
            single = client.act(session.id, observation, episode=1, step=step)
            np.testing.assert_array_equal(streamed.action, single.action)
        with pytest.raises(InvalidRequest):
            acting.act(session.id, observations[0][:5], deterministic=True)
        assert acting.act(session.id, observations[0], deterministic=True).policy_version == 1
    client.delete_session(session.id)
