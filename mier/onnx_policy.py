"""A policy as an ONNX graph, normaliser and action bounds inside: what the service and the edge run.

observation [n, observation_dim] ─┐
context     [n, context_dim]     ─┼─ action [n, action_dim] in environment units, within bounds
noise       [n, action_dim]      ─┘  (zeros: the deterministic action)
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from mier.agent import Agent
from mier.networks import Policy
from mier.types import EnvSpec
from mier.weights import PolicyWeights


class _Bounded(nn.Module):
    def __init__(self, policy: Policy, spec: EnvSpec) -> None:
        super().__init__()
        self.policy, self.spec = policy, spec

    def forward(self, observation: Tensor, context: Tensor, noise: Tensor) -> Tensor:
        return self.spec.from_unit_action(self.policy(observation, context, noise))


def export(weights: PolicyWeights, agent: Agent) -> bytes:
    """The ONNX model of these weights; any batch size."""
    spec, dims = agent.spec, agent.configuration.model.context_dim
    example = (torch.zeros(2, spec.observation_dim), torch.zeros(2, dims), torch.zeros(2, spec.action_dim))
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        # The exporter warns about its own internals (deprecations in torch and onnxscript), nothing a user can act on.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Bounded(weights.load_policy(agent), spec).eval(),
            example,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["observation", "context", "noise"],
            output_names=["action"],
            dynamic_shapes={"observation": {0: batch}, "context": {0: batch}, "noise": {0: batch}},
        )
    assert program is not None, "torch.onnx.export with dynamo=True returns a program"
    model = program.model_proto
    for node in model.graph.node:
        # The exporter's notes on where each node comes from: the paths of this machine, which are nobody's business
        # and would make equal policies differ from one machine to the next.
        node.ClearField("metadata_props")
    return model.SerializeToString(deterministic=True)
