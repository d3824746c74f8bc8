"""LitServe with one worker: POST /predict. Its argument is the policy's ONNX file."""

from __future__ import annotations

import socket
import sys
import threading
import time
import urllib.request

import litserve as ls
from bare_policy import BarePolicy


class Act(ls.LitAPI):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def setup(self, device):
        self.policy = BarePolicy(self.path)

    def decode_request(self, request):
        return request["observation"]

    def predict(self, observation):
        return self.policy.act(observation)

    def encode_response(self, action):
        return {"action": action}


def tell(port: int) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
        except OSError:
            time.sleep(0.2)
    print("port", port, flush=True)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    threading.Thread(target=tell, args=(number,), daemon=True).start()
    server = ls.LitServer(Act(sys.argv[1]), accelerator="cpu", workers_per_device=1, timeout=600)
    server.run(host="127.0.0.1", port=number, generate_client_file=False, log_level="warning", timeout_keep_alive=600)
