"""Row 1: `act` over a real socket, one client, against bare echoes of the same payload and other model servers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack

import grpc
import numpy as np
import numpy.typing as npt

from mier_bench.interleaving import Pace, interleave
from mier_bench.peers.bare_policy import BarePolicy
from mier_bench.row import MICROSECONDS, Row, Target, Wanted, compared, require_equal
from mier_bench.serving import ours as o
from mier_bench.serving.environments import PEERS, python_of
from mier_bench.serving.grpc_wire import lockstep, unary
from mier_bench.serving.http_wire import Connection
from mier_bench.serving.processes import Server, busy_clock, serving
from mier_proto.v1 import adaptation_pb2 as pb

FloatArray = npt.NDArray[np.float32]
ID = 1
SIZES = (17, 348)
ECHO = Target(Wanted.AT_MOST, 1.25)
NOTES = "the policy's own time, a bare ONNX Runtime call, is the floor: an echo has none"
PEER_SERVERS = {
    "LitServe": ("litserve", "lit_policy.py", Target(Wanted.AT_MOST, 0.3)),
    "Ray Serve": ("ray", "ray_policy.py", Target(Wanted.AT_MOST, 0.1)),
}
AFTER_THEM = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
"""Ray asks for a token else, and tells of itself."""


def rows(pace: Pace) -> list[Row]:
    with ExitStack() as held:
        service = held.enter_context(o.our_service(*SIZES))
        http = held.enter_context(serving([sys.executable, str(PEERS / "asgi_echo.py")]))
        rpc = held.enter_context(serving([sys.executable, str(PEERS / "grpc_echo.py"), "uvloop"]))
        return [row for dim in SIZES for row in _of(dim, service, http, rpc, pace)]


def _of(dim: int, service: o.Ours, http: Server, rpc: Server, pace: Pace) -> list[Row]:
    session, policy = service.session(dim), BarePolicy(str(service.folder / f"{dim}.onnx"))
    seen = o.observation_of(dim).tolist()
    asked, raw = o.json_request(session, dim), o.binary_request(session, dim)
    act = o.message(session, dim)
    alone, streamed = act.SerializeToString(), pb.ActStreamRequest(request=act).SerializeToString()
    with ExitStack() as held:
        channel = held.enter_context(service.channel())
        echoes = held.enter_context(grpc.insecure_channel(f"127.0.0.1:{rpc.port}"))
        pairs = {
            "HTTP, JSON": (_http(service.port, asked), _http(http.port, asked)),
            "HTTP, binary": (_http(service.port, raw), _http(http.port, raw)),
            "gRPC unary": (unary(channel, f"{o.METHOD}Act", alone), unary(echoes, f"{o.METHOD}Act", alone)),
            "gRPC stream": (
                lockstep(channel, f"{o.METHOD}ActStream", streamed),
                lockstep(echoes, f"{o.METHOD}ActStream", streamed),
            ),
        }
        expected = np.asarray(policy.act(seen), np.float32)
        answers = {
            "HTTP, JSON": np.asarray(json.loads(pairs["HTTP, JSON"][0]())["action"], np.float32),
            "HTTP, binary": np.frombuffer(pairs["HTTP, binary"][0](), "<f4"),
            "gRPC unary": _action(pb.ActResponse.FromString(pairs["gRPC unary"][0]())),
            "gRPC stream": _action(pb.ActStreamResponse.FromString(pairs["gRPC stream"][0]()).outcome.response),
        }
        checked = {k: require_equal(k, float(np.abs(v - expected).max()), 1e-5) for k, v in answers.items()}
        contenders: dict[str, Callable[[], object]] = {"policy": lambda: policy.act(seen)}
        clocks: dict[str, Callable[[], float]] = {}
        for kind, (mine, echo) in pairs.items():
            contenders |= {kind: mine, f"{kind} echo": echo}
            clocks |= {kind: busy_clock(service.server), f"{kind} echo": busy_clock(rpc if "gRPC" in kind else http)}
        timed = interleave(contenders, pace, clocks)
    floor = ("bare ONNX Runtime call", timed["policy"])
    found = [
        compared(
            ID,
            f"act, {dim} floats, {kind}",
            ECHO,
            MICROSECONDS,
            timed[kind],
            (f"bare {'grpc.aio' if 'gRPC' in kind else 'ASGI'} echo", timed[f"{kind} echo"]),
            floor,
            checked={kind: checked[kind]},
            notes=NOTES,
        )
        for kind in pairs
    ]
    return found + [_beside(name, dim, service, session, expected, pace) for name in PEER_SERVERS]


def _beside(
    name: str,
    dim: int,
    service: o.Ours,
    session: str,
    expected: np.ndarray[tuple[int], np.dtype[np.float32]],
    pace: Pace,
) -> Row:
    """The same request to another model server, with the same policy."""
    folder, script, target = PEER_SERVERS[name]
    command = [python_of(folder), str(PEERS / script), str(service.folder / f"{dim}.onnx")]
    with serving(command, environment=AFTER_THEM) as server:
        theirs = _http(server.port, o.json_request(session, dim, "/predict"))
        action = np.asarray(json.loads(theirs())["action"], np.float32)
        checked = {name: require_equal(name, float(np.abs(action - expected).max()), 1e-5)}
        timed = interleave(
            {"ours": _http(service.port, o.json_request(session, dim)), "theirs": theirs},
            pace,
            {"ours": busy_clock(service.server), "theirs": busy_clock(server)},
        )
    what = f"act, {dim} floats, HTTP, JSON"
    return compared(ID, what, target, MICROSECONDS, timed["ours"], (name, timed["theirs"]), checked=checked)


def _http(port: int, asked: bytes) -> Callable[[], bytes]:
    connection = Connection(port)
    return lambda: connection.exchange(asked)


def _action(reply: pb.ActResponse) -> FloatArray:
    return np.frombuffer(reply.action.data, "<f4")
