"""Acting over both transports: parity with the weights themselves, seeded exploration, refusals."""

from __future__ import annotations

from pathlib import Path

import grpc
import httpx
import numpy as np
import onnxruntime as ort
import pytest
import torch

from mier.exploration import noise
from mier.weights import PolicyWeights
from mier_client.transport import ActQuery, Page, Transport
from mier_client.values import Session
from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_proto.v1 import adaptation_pb2_grpc as pb_grpc
from tests.contract import tiny
from tests.contract.conftest import MAX_BODY_BYTES, REWARD, connect
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, fine_tune, refused, submit
from tests.contract.server import Server

TOLERANCE = 1e-5
OBSERVATIONS = np.random.default_rng(0).standard_normal((20, tiny.OBSERVATION_DIM)).astype(np.float32)


def _reference(weights: PolicyWeights, checkpoints: Path, seed: int | None, step: int) -> np.ndarray:
    """Action [action_dim] of the torch policy itself."""
    agent = tiny.read(checkpoints, REWARD).agent
    drawn = np.zeros(tiny.ACTION_DIM, np.float32) if seed is None else noise(seed, 4, step, tiny.ACTION_DIM)
    inputs = (OBSERVATIONS[step], np.asarray(weights.context), drawn)
    with torch.inference_mode():
        unit = weights.load_policy(agent)(*(torch.from_numpy(x)[None] for x in inputs))
        return np.asarray(agent.spec.from_unit_action(unit)[0])


def test_actions_are_those_of_the_weights(transport: Transport, session: Session, checkpoints: Path) -> None:
    submit(transport, session, batch(40))
    context = transport.adapt(session.id, ALL, "", CALL_S).model_context.values
    weights = PolicyWeights.of(tiny.read(checkpoints, REWARD).agent, context)
    for step, observation in enumerate(OBSERVATIONS):
        mean = transport.act(session.id, observation, MEAN, CALL_S)
        np.testing.assert_allclose(mean.action, _reference(weights, checkpoints, None, step), atol=TOLERANCE)
        drawn = transport.act(session.id, observation, ActQuery(False, 4, step), CALL_S)
        np.testing.assert_allclose(drawn.action, _reference(weights, checkpoints, 7, step), atol=TOLERANCE)


def test_fine_tuned_actions_are_those_of_the_published_files(
    transport: Transport, session: Session, checkpoints: Path, server: Server
) -> None:
    submit(transport, session, batch(40))
    fine_tune(transport, session)
    version = transport.list_versions(session.id, Page(10, ""), CALL_S)[0][-1]
    file = server.data / "weights" / f"{version.weights_hash}.safetensors"
    weights = PolicyWeights.from_bytes(file.read_bytes())
    assert weights.context.tolist() == version.policy_context.tolist()
    for step, observation in enumerate(OBSERVATIONS[:5]):
        action = transport.act(session.id, observation, MEAN, CALL_S).action
        np.testing.assert_allclose(action, _reference(weights, checkpoints, None, step), atol=TOLERANCE)


def test_both_transports_and_onnx_agree(session: Session, server: Server) -> None:
    runs = [
        ort.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in (server.data / "policies").iterdir()
    ]
    http, grpc = connect(server, "http"), connect(server, "grpc")
    for step, observation in enumerate(OBSERVATIONS[:5]):
        query = ActQuery(False, 1, step)
        actions = [transport.act(session.id, observation, query, CALL_S).action for transport in (http, grpc)]
        assert np.array_equal(actions[0], actions[1])
        inputs = {
            "observation": observation[None],
            "context": session.model_context.values[None],
            "noise": noise(session.seed, 1, step, tiny.ACTION_DIM)[None],
        }
        direct = [run.run(["action"], inputs)[0][0] for run in runs]
        assert any(np.allclose(actions[0], action, atol=TOLERANCE) for action in direct)
    http.close()
    grpc.close()


def test_exploration_is_a_function_of_seed_episode_and_step(transport: Transport, session: Session) -> None:
    def explore(of: Session, episode: int, step: int) -> tuple[float, ...]:
        return tuple(transport.act(of.id, OBSERVATION, ActQuery(False, episode, step), CALL_S).action)

    twin = transport.create_session(REWARD, session.seed, None, "", CALL_S)
    other = transport.create_session(REWARD, session.seed + 1, None, "", CALL_S)
    here = explore(session, 1, 2)
    assert explore(session, 1, 2) == here
    assert explore(twin, 1, 2) == here
    assert len({here, explore(other, 1, 2), explore(session, 2, 2), explore(session, 1, 3)}) == 4


def test_actions_keep_the_bounds(transport: Transport, session: Session) -> None:
    for step in range(50):
        action = transport.act(session.id, 10 * OBSERVATION, ActQuery(False, 0, step), CALL_S).action
        assert (np.abs(action) <= session.environment.action_high).all()


def test_exploring_without_episode_and_step_is_refused(transport: Transport, session: Session) -> None:
    with refused("INVALID_ARGUMENT", "episode", "step", "deterministic"):
        transport.act(session.id, OBSERVATION, ActQuery(False, None, None), CALL_S)
    with refused("INVALID_ARGUMENT"):
        transport.act(session.id, OBSERVATION, ActQuery(False, 0, -1), CALL_S)
    with refused("INVALID_ARGUMENT"):
        transport.act(session.id, OBSERVATION, ActQuery(False, 2**31, 0), CALL_S)


@pytest.mark.parametrize("size", [0, 3, 5])
def test_a_wrong_observation_is_refused(transport: Transport, session: Session, size: int) -> None:
    with refused("INVALID_ARGUMENT", "observation", "[4]", f"[{size}]"):
        transport.act(session.id, np.zeros(size, np.float32), MEAN, CALL_S)


def test_an_unknown_session_is_refused(transport: Transport) -> None:
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.act("nobody", OBSERVATION, MEAN, CALL_S)


def test_one_that_is_refused_does_not_spoil_a_batch(session: Session, server: Server, http: httpx.Client) -> None:
    """Also where all of a policy's are refused. Once a group of rows was begun before its first row
    was checked, and then run empty: INTERNAL for all."""
    good = {"session_id": session.id, "observation": OBSERVATION.tolist(), "deterministic": True}
    bad = good | {"observation": [0.0]}
    for asked in ([bad], [bad, good], [good, bad, good]):
        outcomes = http.post("/act/batch", json={"requests": asked}).raise_for_status().json()["outcomes"]
        assert [outcome["error"] is None for outcome in outcomes] == [one is good for one in asked]
        with grpc.insecure_channel(server.grpc) as channel:
            messages = [
                pb.ActRequest(session_id=session.id, observation=encode(one["observation"]), deterministic=True)
                for one in asked
            ]
            reply = pb_grpc.AdaptationServiceStub(channel).ActBatch(pb.ActBatchRequest(requests=messages))
        assert [outcome.HasField("response") for outcome in reply.outcomes] == [one is good for one in asked]


def test_a_reply_may_be_larger_than_a_request(server: Server) -> None:
    """Once the limit of requests was set for replies, too."""
    asked = pb.ActBatchRequest(requests=[pb.ActRequest(session_id="nobody")] * 1024)
    with grpc.insecure_channel(server.grpc) as channel:
        reply = pb_grpc.AdaptationServiceStub(channel).ActBatch(asked, timeout=CALL_S)
    assert asked.ByteSize() < MAX_BODY_BYTES < reply.ByteSize()
    assert len(reply.outcomes) == 1024
