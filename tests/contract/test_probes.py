"""Probes of both transports, of a service that starts with checkpoints it cannot use, and of one that drains."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from mier_client.transport import Transport
from tests.contract.conftest import DYNAMICS, REWARD
from tests.contract.helpers import CALL_S
from tests.contract.server import Server, serving

ADAPTATION = "mier_proto.v1.AdaptationService"


def test_readiness_says_what_it_rests_on(http: httpx.Client, transport: Transport) -> None:
    for path in ("/readyz", "/healthz", "/v1/readyz", "/v1/healthz"):
        said = http.get(path)
        assert said.status_code == 200, path
        assert said.json()["status"] == "ready"
        assert set(said.json()["checkpoints"]) == {REWARD, DYNAMICS}
        assert {check["name"]: check["holds"] for check in said.json()["checks"]} == {
            "store": True,
            "checkpoint": True,
            "warm-up": True,
        }
    assert http.get("/livez").json() == {"status": "alive"}
    assert transport.live(CALL_S)
    assert transport.ready(CALL_S)


@pytest.mark.parametrize("service", ["", ADAPTATION])
def test_grpc_health_answers_for_the_server_and_the_service(server: Server, service: str) -> None:
    with grpc.insecure_channel(server.grpc) as calls:
        reply = HealthStub(calls).Check(HealthCheckRequest(service=service), timeout=CALL_S)
        assert reply.status == HealthCheckResponse.SERVING


def test_grpc_health_knows_no_other_service(server: Server) -> None:
    """Check refuses it; Watch says so and goes on, as the protocol has it."""
    other = HealthCheckRequest(service="somebody.Else")
    with grpc.insecure_channel(server.grpc) as calls:
        with pytest.raises(grpc.RpcError) as caught:
            HealthStub(calls).Check(other, timeout=CALL_S)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        news = HealthStub(calls).Watch(other, timeout=CALL_S)
        assert next(news).status == HealthCheckResponse.SERVICE_UNKNOWN
        news.cancel()


def test_without_a_usable_checkpoint_it_is_not_ready_and_says_why(checkpoints: Path, tmp_path: Path) -> None:
    """One of two checkpoints is damaged: ready, and it is named. Both are: not ready, over both transports."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoints / REWARD, folder / "whole")
    shutil.copytree(checkpoints / REWARD, folder / "broken")
    _damage(folder / "broken")
    with serving(folder, tmp_path / "data", "--finetune-workers", "0") as server:
        said = httpx.get(f"{server.http}/readyz", trust_env=False)
        assert said.status_code == 200
        (check,) = [check for check in said.json()["checks"] if check["name"] == "checkpoint"]
        assert check["holds"]
        assert "'broken' cannot be read" in check["detail"]
    _damage(folder / "whole")
    with serving(folder, tmp_path / "data", "--finetune-workers", "0") as server:
        said = httpx.get(f"{server.http}/readyz", trust_env=False)
        assert said.status_code == 503
        assert said.json()["status"] == "no checkpoint"
        with grpc.insecure_channel(server.grpc) as calls:
            reply = HealthStub(calls).Check(HealthCheckRequest(), timeout=CALL_S)
            assert reply.status == HealthCheckResponse.NOT_SERVING
        assert httpx.get(f"{server.http}/livez", trust_env=False).status_code == 200


def _damage(checkpoint: Path) -> None:
    weights = checkpoint / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
