"""Row 4: an action at the edge, against a bare ONNX Runtime call of the same graph."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from mier import onnx_policy
from mier.weights import PolicyWeights
from mier_bench import bundled
from mier_bench.interleaving import Pace, interleave
from mier_bench.row import MICROSECONDS, Row, Target, Wanted, compared, require_equal
from mier_client.edge import EdgePolicy

ID = 4


def rows(pace: Pace) -> list[Row]:
    found = []
    for name in bundled.FAMILY_NAMES:
        agent = bundled.checkpoint(name).agent
        graph = onnx_policy.export(PolicyWeights.of(agent), agent)
        context = agent.training_contexts[0].numpy()
        edge = EdgePolicy(graph, context)
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
        difference = float(np.abs(edge.act(observation) - bare.run(["action"], inputs)[0][0]).max())
        checked = {"action": require_equal("action", difference, 0.0)}
        timed = interleave(
            {"edge": lambda: edge.act(observation), "bare": lambda: bare.run(["action"], inputs)},  # noqa: B023
            pace,
        )
        found.append(
            compared(
                ID,
                f"EdgePolicy.act, {name}",
                Target(Wanted.AT_MOST, 1.3),
                MICROSECONDS,
                timed["edge"],
                ("bare ONNX Runtime call", timed["bare"]),
                checked=checked,
            )
        )
    return found
