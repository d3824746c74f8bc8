"""Row 2: 64 clients of one server core, against other model servers; and many sessions in one message."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from mier_bench.interleaving import Pace, interleave
from mier_bench.row import Row, Target, Wanted, compared, per_second, require_equal
from mier_bench.rows.act_round_trip import AFTER_THEM, PEER_SERVERS
from mier_bench.serving import ours as o
from mier_bench.serving.environments import PEERS, python_of
from mier_bench.serving.grpc_wire import unary
from mier_bench.serving.http_wire import Swarm
from mier_bench.serving.processes import busy_clock, serving
from mier_proto.v1 import adaptation_pb2 as pb

ID = 2
CLIENTS, REPLIES, DIM, BATCH = 64, 128, 17, 256
SERVERS = Target(Wanted.AT_LEAST, 4.0)
BATCHED = Target(Wanted.AT_LEAST, 40.0)


def rows(pace: Pace) -> list[Row]:
    with o.our_service(DIM) as service:
        session = service.session(DIM)
        return [
            *(_beside(name, service, session, pace) for name in PEER_SERVERS),
            _batch(service, pace),
        ]


def _beside(name: str, service: o.Ours, session: str, pace: Pace) -> Row:
    folder, script, _ = PEER_SERVERS[name]
    command = [python_of(folder), str(PEERS / script), str(service.folder / f"{DIM}.onnx")]
    with ExitStack() as held:
        server = held.enter_context(serving(command, environment=AFTER_THEM))
        swarms = {
            "ours": Swarm(service.port, [o.json_request(session, DIM)] * CLIENTS),
            "theirs": Swarm(server.port, [o.json_request(session, DIM, "/predict")] * CLIENTS),
        }
        for swarm in swarms.values():
            held.callback(swarm.close)
        timed = interleave(
            {kind: (lambda swarm=swarm: swarm.replies(REPLIES)) for kind, swarm in swarms.items()},  # type: ignore[misc]
            pace,
            {"ours": busy_clock(service.server), "theirs": busy_clock(server)},
        )
    unit = per_second("acts", REPLIES)
    what = f"act, {DIM} floats, HTTP, JSON, {CLIENTS} clients"
    return compared(ID, what, SERVERS, unit, timed["ours"], (name, timed["theirs"]))


def _batch(service: o.Ours, pace: Pace) -> Row:
    """Each request of it is another session's."""
    asked = [o.message(service.session(DIM), DIM) for _ in range(BATCH)]
    with service.channel() as channel:
        alone = unary(channel, f"{o.METHOD}Act", asked[0].SerializeToString())
        together = unary(channel, f"{o.METHOD}ActBatch", pb.ActBatchRequest(requests=asked).SerializeToString())
        one = np.frombuffer(pb.ActResponse.FromString(alone()).action.data, "<f4")
        outcomes = pb.ActBatchResponse.FromString(together()).outcomes
        all_of_them = np.stack([np.frombuffer(outcome.response.action.data, "<f4") for outcome in outcomes])
        checked = {"actions": require_equal("actions", float(np.abs(all_of_them - one).max()), 1e-5)}
        clock = busy_clock(service.server)
        timed = interleave({"one": alone, "many": together}, pace, {"one": clock, "many": clock})
    return compared(
        ID,
        f"ActBatch, {BATCH} sessions in a message",
        BATCHED,
        per_second("acts"),
        timed["many"].shared_by(BATCH),
        ("Act, gRPC unary", timed["one"]),
        checked=checked,
    )
