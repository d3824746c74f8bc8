"""The Open Inference Protocol over a session: what its clients read, and the same actions as /act."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from mier_client.transport import Transport
from mier_client.values import Session
from tests.contract import tiny
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, submit
from tests.contract.server import Server


@pytest.fixture
def session(server: Server) -> Session:
    """Adapted once, so that version 2 acts."""
    transport: Transport = connect(server, "http")
    made = transport.create_session(REWARD, 7, None, "", CALL_S)
    submit(transport, made, batch(40))
    transport.adapt(made.id, ALL, "", CALL_S)
    transport.close()
    return made


def tensor(rows: np.ndarray, **other: object) -> dict[str, object]:
    return {
        "name": "observation",
        "datatype": "FP32",
        "shape": list(rows.shape),
        "data": rows.reshape(-1).tolist(),
    } | other


def test_the_server_and_its_models_describe_themselves(http: httpx.Client, session: Session) -> None:
    assert http.get("/v2").json().keys() == {"name", "version", "extensions"}
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get(f"/v2/models/{session.id}/ready").json() == {"name": session.id, "ready": True}
    model = http.get(f"/v2/models/{session.id}").json()
    assert model["name"] == session.id
    assert model["versions"] == ["2"]
    assert model["inputs"] == [{"name": "observation", "datatype": "FP32", "shape": [-1, tiny.OBSERVATION_DIM]}]
    assert model["outputs"][0] == {"name": "action", "datatype": "FP32", "shape": [-1, tiny.ACTION_DIM]}


def test_inferred_actions_are_those_of_act(http: httpx.Client, server: Server, session: Session) -> None:
    """One row, flat or nested, and several rows at once."""
    transport = connect(server, "grpc")
    rows = np.stack([OBSERVATION, -OBSERVATION, 2 * OBSERVATION])
    acted = [transport.act(session.id, row, MEAN, CALL_S) for row in rows]
    transport.close()
    wanted = np.concatenate([one.action for one in acted])
    url = f"/v2/models/{session.id}/infer"
    reply = http.post(url, json={"id": "mine", "inputs": [tensor(rows)]}).json()
    action, version = reply["outputs"]
    assert action["name"] == "action"
    assert action["shape"] == [3, tiny.ACTION_DIM]
    np.testing.assert_allclose(action["data"], wanted, rtol=0, atol=1e-6)
    assert version == {"name": "policy_version", "datatype": "INT64", "shape": [3], "data": [2, 2, 2]}
    assert reply["model_name"] == session.id
    assert reply["model_version"] == "2"
    assert reply["id"] == "mine"
    assert reply["parameters"]["weights_hash"] == acted[0].weights_hash
    for one in (tensor(OBSERVATION), tensor(rows[:1], data=rows[:1].tolist()), tensor(rows[:1], datatype="FP64")):
        single = http.post(url, json={"inputs": [one], "outputs": [{"name": "action"}]}).json()
        assert [output["name"] for output in single["outputs"]] == ["action"]
        np.testing.assert_allclose(single["outputs"][0]["data"], acted[0].action, rtol=0, atol=1e-6)


def test_exploring_is_for_one_row_and_repeats(http: httpx.Client, session: Session) -> None:
    url = f"/v2/models/{session.id}/infer"
    how = {"deterministic": False, "episode": 1, "step": 2}
    asked = {"parameters": how, "inputs": [tensor(OBSERVATION)]}
    first, again = http.post(url, json=asked).json(), http.post(url, json=asked).json()
    plain = http.post("/act", json={"session_id": session.id, "observation": OBSERVATION.tolist(), **how}).json()
    assert first["outputs"][0]["data"] == again["outputs"][0]["data"] == plain["action"]
    two = {"parameters": how, "inputs": [tensor(np.stack([OBSERVATION, OBSERVATION]))]}
    refused = http.post(url, json=two)
    assert refused.status_code == 422
    assert "one row" in refused.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"inputs": [tensor(OBSERVATION, shape=[2, 4])]}, 422, "shape [2, 4]"),
        ({"inputs": [tensor(OBSERVATION[:2])]}, 422, "observation"),
        ({"inputs": [tensor(OBSERVATION, datatype="INT8")]}, 422, "FP32"),
        ({"inputs": [tensor(OBSERVATION, name="image")]}, 422, "observation"),
        ({"inputs": []}, 422, "at least 1"),
        ({"inputs": [tensor(np.zeros((0, 4), np.float32))]}, 422, "1 to 1024 rows"),
        ({"inputs": [tensor(np.zeros((1025, 4), np.float32))]}, 422, "1 to 1024 rows"),
    ],
)
def test_a_refusal_is_a_problem_with_the_protocols_error(
    http: httpx.Client, session: Session, body: dict[str, object], status: int, words: str
) -> None:
    reply = http.post(f"/v2/models/{session.id}/infer", json=body)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert words in reply.json()["error"]
    assert reply.json()["error"] == reply.json()["detail"]


def test_a_model_that_is_not_there_is_no_model(http: httpx.Client) -> None:
    for method, path in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
        reply = http.request(method, f"/v2/models/nothing{path}", json={"inputs": [tensor(OBSERVATION)]})
        assert reply.status_code == 404, path
        assert "nothing" in reply.json()["error"]
    assert http.get("/v1/v2").status_code == 404, "the protocol has its own version"
    assert "error" not in http.get("/sessions/nothing").json(), "the service's own calls have no need of it"
