"""Row 4: an action at the edge, by a graph and by a bundle, against a bare ONNX Runtime call of the same graph."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from mier import onnx_policy
from mier.types import EnvSpec
from mier.weights import PolicyWeights
from mier_bench import bundled
from mier_bench.interleaving import Pace, interleave
from mier_bench.row import MICROSECONDS, Row, Target, Wanted, compared, require_equal
from mier_client.edge import BundledPolicy, EdgePolicy
from mier_proto.bundles import ActsWith, Manifest, Unpacked

ID = 4


def rows(pace: Pace) -> list[Row]:
    found = []
    for name in bundled.FAMILY_NAMES:
        agent = bundled.checkpoint(name).agent
        graph = onnx_policy.export(PolicyWeights.of(agent), agent)
        context = agent.training_contexts[0].numpy()
        edge, bundled_edge = EdgePolicy(graph, context), BundledPolicy(_bundle(agent.spec, graph, context))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        bare = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        draw = np.random.default_rng(0)
        observation = draw.standard_normal(agent.spec.observation_dim).astype(np.float32)
        inputs = {
            "observation": observation[None],
            "context": context[None],
            "noise": np.zeros((1, agent.spec.action_dim), np.float32),
        }
        wanted = bare.run(["action"], inputs)[0][0]
        timed = interleave(
            {
                "EdgePolicy": lambda: edge.act(observation),  # noqa: B023
                "BundledPolicy": lambda: bundled_edge.act(observation),  # noqa: B023
                "bare": lambda: bare.run(["action"], inputs),  # noqa: B023
            },
            pace,
        )
        for kind, policy in (("EdgePolicy", edge), ("BundledPolicy", bundled_edge)):
            difference = float(np.abs(policy.act(observation) - wanted).max())
            found.append(
                compared(
                    ID,
                    f"{kind}.act, {name}",
                    Target(Wanted.AT_MOST, 1.3),
                    MICROSECONDS,
                    timed[kind],
                    ("bare ONNX Runtime call", timed["bare"]),
                    checked={"action": require_equal("action", difference, 0.0)},
                )
            )
    return found


def _bundle(spec: EnvSpec, graph: bytes, context: npt.NDArray[np.float32]) -> Unpacked:
    """As the service makes it for a session that declares nothing."""
    name = hashlib.sha256(graph).hexdigest()
    manifest = Manifest(
        session_id="",
        serial=1,
        acts=ActsWith(1, "", name, tuple(map(float, context))),
        base=None,
        checkpoint_hash="",
        seed=0,
        environment=spec.id,
        observation_names=spec.observation_names,
        action_names=spec.action_names,
        dt_s=spec.dt_s,
        action_low=spec.action_low,
        action_high=spec.action_high,
        action_max_change=(),
        limited=False,
        fallback="hold_last",
        create_time_unix_us=time.time_ns() // 1000,
        max_age_s=86_400.0,
    )
    return Unpacked(manifest, b"", {name: graph})
