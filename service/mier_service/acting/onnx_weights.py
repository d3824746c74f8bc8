"""The ONNX policy of new weights, made from that of old ones: the graph stays, its parameters are replaced.

Tracing a policy anew takes seconds of a core; all versions of a session have the same graph, whose initialisers bear
the names of the weights (`policy.layers.0.weight`).
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from mier import onnx_policy
from mier.agent import Agent
from mier.weights import PolicyWeights


def export_like(old: bytes, weights: PolicyWeights, agent: Agent) -> bytes:
    """The policy of `weights` in the graph of `old`; traced anew if their parameters differ by name or shape."""
    model = onnx.load_from_string(old)
    wanted = {name: value.numpy() for name, value in weights.state.items() if name.startswith("policy.")}
    held = {item.name: item for item in model.graph.initializer}
    if any(name not in held or tuple(held[name].dims) != value.shape for name, value in wanted.items()):
        return onnx_policy.export(weights, agent)
    for name, value in wanted.items():
        held[name].CopyFrom(numpy_helper.from_array(value, name))
    return model.SerializeToString(deterministic=True)
