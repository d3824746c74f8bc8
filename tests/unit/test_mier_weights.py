"""Policy weights as bytes: deterministic, complete, refused when damaged, and nobody else's memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mier.checkpoint import Checkpoint
from mier.serialization import CorruptedData, pack, same
from mier.weights import PolicyWeights


def test_round_trip_and_determinism(dynamics_checkpoint: Checkpoint) -> None:
    weights = PolicyWeights.of(dynamics_checkpoint.agent, np.array([1.0, -2.0, 0.1, 0.0], np.float32))
    again = PolicyWeights.from_bytes(weights.to_bytes())
    assert same(again.state, weights.state)
    assert again.context.dtype == np.float32
    np.testing.assert_array_equal(again.context, weights.context)
    twin = PolicyWeights.of(dynamics_checkpoint.agent, np.array([1.0, -2.0, 0.1, 0.0], np.float32))
    assert again.to_bytes() == weights.to_bytes() == twin.to_bytes()


def test_another_context_or_weight_gives_other_bytes(dynamics_checkpoint: Checkpoint) -> None:
    agent = dynamics_checkpoint.agent
    own = PolicyWeights.of(agent)
    moved = PolicyWeights(own.state | {"log_alpha": own.state["log_alpha"] + 1e-6}, own.context)
    assert len({w.to_bytes() for w in (own, moved, PolicyWeights.of(agent, own.context + np.float32(1e-6)))}) == 3


def test_without_a_context_it_is_the_prior(dynamics_checkpoint: Checkpoint) -> None:
    agent = dynamics_checkpoint.agent
    with torch.no_grad():
        agent.model.prior_context.fill_(0.25)
    np.testing.assert_array_equal(PolicyWeights.of(agent).context, np.full(4, 0.25, np.float32))
    assert PolicyWeights.of(agent).state["log_alpha"].item() == -1.25


def test_the_loaded_policy_is_the_agents_and_frozen(dynamics_checkpoint: Checkpoint) -> None:
    agent = dynamics_checkpoint.agent
    policy = PolicyWeights.from_bytes(PolicyWeights.of(agent).to_bytes()).load_policy(agent)
    inputs = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 2)
    assert torch.equal(policy(*inputs), agent.policy(*inputs))
    assert not policy.training
    assert not any(p.requires_grad for p in policy.parameters())


def test_weights_share_no_memory_with_the_agent_or_the_caller(dynamics_checkpoint: Checkpoint) -> None:
    agent = dynamics_checkpoint.agent
    context = np.zeros(4, np.float32)
    own, given = PolicyWeights.of(agent), PolicyWeights.of(agent, context)
    before = own.to_bytes(), given.to_bytes()
    context += 1.0
    with torch.no_grad():
        for module in agent.modules().values():
            for tensor in module.state_dict().values():
                tensor += 1.0
    assert (own.to_bytes(), given.to_bytes()) == before


@pytest.mark.parametrize(
    "tree", [[], {}, {"state": {}}, {"state": 3, "context": torch.zeros(2)}, {"state": {}, "context": 1}]
)
def test_another_saved_state_is_refused(tree: object) -> None:
    with pytest.raises(CorruptedData, match="expected policy weights, came another saved state"):
        PolicyWeights.from_bytes(pack(tree))


def test_damage_is_refused(dynamics_checkpoint: Checkpoint) -> None:
    data = PolicyWeights.of(dynamics_checkpoint.agent).to_bytes()
    middle = bytearray(data)
    middle[-50] ^= 1
    for damaged in (b"", data[:-1], data[: len(data) // 2], bytes(middle)):
        with pytest.raises(CorruptedData):
            PolicyWeights.from_bytes(damaged)
