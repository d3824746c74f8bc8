"""Ray Serve with one replica: POST /predict. Its argument is the policy's ONNX file."""

from __future__ import annotations

import os
import signal
import socket
import sys

import ray
from bare_policy import BarePolicy
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=128, ray_actor_options={"num_cpus": 0})
class Act:
    def __init__(self, path):
        self.policy = BarePolicy(path)

    async def __call__(self, request):
        return {"action": self.policy.act((await request.json())["observation"])}


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {"env_vars": {"PYTHONPATH": here}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    serve.start(http_options={"host": "127.0.0.1", "port": number, "keep_alive_timeout_s": 600})
    serve.run(Act.bind(sys.argv[1]), route_prefix="/predict")
    print("port", number, flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    ray.shutdown()
