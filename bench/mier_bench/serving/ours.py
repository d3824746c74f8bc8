"""The service itself, as its operator starts it, on checkpoints made for the bench; and what is asked of it."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from grpc import Channel, insecure_channel

from mier_bench.serving import checkpoints, http_wire
from mier_bench.serving.processes import Server, serving
from mier_client import Client
from mier_proto import convert
from mier_proto.v1 import adaptation_pb2 as pb

JSON, BINARY = "application/json", "application/octet-stream"
METHOD = "/mier_proto.v1.AdaptationService/"


@dataclass(frozen=True)
class Ours:
    """A service that runs, and the policies that it acts with."""

    server: Server
    http: str
    grpc: str
    folder: Path
    """Has <observation_dim>.onnx of each policy."""

    @property
    def port(self) -> int:
        return int(self.http.rpartition(":")[2])

    def session(self, observation_dim: int) -> str:
        """Id of a new one."""
        with Client.connect(self.http) as client:
            return client.create_session(name_of(observation_dim)).id

    def channel(self) -> Channel:
        return insecure_channel(self.grpc)


@contextlib.contextmanager
def our_service(*observation_dims: int, flags: tuple[str, ...] = ()) -> Iterator[Ours]:
    """With a checkpoint for each observation size."""
    with tempfile.TemporaryDirectory(prefix="mier-bench-") as name:
        folder = Path(name)
        for dim in observation_dims:
            agent = checkpoints.write(folder / "checkpoints", name_of(dim), dim)
            (folder / f"{dim}.onnx").write_bytes(checkpoints.graph(agent))
        command = [
            *(sys.executable, "-m", "mier_service", "--http-port", "0", "--grpc-port", "0"),
            *("--checkpoints", str(folder / "checkpoints"), "--data", str(folder / "data")),
            *("--address-file", str(folder / "address.json"), "--keep-idle-connections-s", "3600", *flags),
        ]
        with serving(command, ready="mier-serve is ready") as server:
            address = json.loads((folder / "address.json").read_text())
            yield Ours(server, address["http"], address["grpc"], folder)


def name_of(observation_dim: int) -> str:
    return f"tiny-{observation_dim}"


def observation_of(dim: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(dim).astype(np.float32)


def json_request(session_id: str, dim: int, path: str = "/v1/act") -> bytes:
    """As the client sends it."""
    body = {"session_id": session_id, "observation": observation_of(dim).tolist(), "deterministic": True}
    return http_wire.request(path, json.dumps(body, separators=(",", ":")).encode(), JSON)


def binary_request(session_id: str, dim: int) -> bytes:
    path = f"/v1/act?session_id={session_id}&deterministic=true"
    return http_wire.request(path, observation_of(dim).tobytes(), BINARY, BINARY)


def message(session_id: str, dim: int) -> pb.ActRequest:
    return pb.ActRequest(session_id=session_id, observation=convert.encode(observation_of(dim)), deterministic=True)
