"""Acting at the edge: the action is that of the policy, explored as the service explores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mier import exploration, onnx_policy
from mier.checkpoint import Checkpoint
from mier.weights import PolicyWeights
from mier_client.edge import EdgePolicy, exploration_noise
from mier_client.values import ActionLimits

SEED = 2**63 + 5


@pytest.fixture
def graph(dynamics_checkpoint: Checkpoint) -> bytes:
    return onnx_policy.export(PolicyWeights.of(dynamics_checkpoint.agent), dynamics_checkpoint.agent)


def expected(checkpoint: Checkpoint, observation: np.ndarray, context: np.ndarray, noise: np.ndarray) -> np.ndarray:
    rows = [torch.from_numpy(np.asarray(value, np.float32))[None] for value in (observation, context, noise)]
    with torch.no_grad():
        action: np.ndarray = checkpoint.spec.from_unit_action(checkpoint.agent.policy(*rows))[0].numpy()
    return action


def test_actions_are_the_policys(dynamics_checkpoint: Checkpoint, graph: bytes) -> None:
    draw = np.random.default_rng(0)
    context = draw.standard_normal(4)
    steady, exploring = EdgePolicy(graph, context), EdgePolicy(graph, context, seed=SEED, episode=2)
    kept = []
    for episode in (2, 3):
        for step in range(3):
            observation = draw.standard_normal(3)
            for policy, noise in (
                (steady, np.zeros(2)),
                (exploring, exploration.noise(SEED, episode, step, 2)),
            ):
                action = policy.act(observation)
                wanted = expected(dynamics_checkpoint, observation, context, noise)
                np.testing.assert_allclose(action, wanted, rtol=0, atol=1e-5)
                kept.append((action, action.copy()))
        exploring.reset()
    assert (exploring.episode, exploring.step, steady.step) == (4, 0, 6)
    # What was handed out stays as it was.
    assert all(np.array_equal(action, copy) for action, copy in kept)


def test_noise_is_the_services() -> None:
    for seed, episode, step in ((0, 0, 0), (SEED, 7, 199), (2**64 - 1, 2**31 - 1, 3)):
        np.testing.assert_array_equal(
            exploration_noise(seed, episode, step, 6), exploration.noise(seed, episode, step, 6)
        )


def test_what_does_not_fit_is_refused(graph: bytes) -> None:
    with pytest.raises(ValueError, match=r"finite context \[4\], came \[3\]"):
        EdgePolicy(graph, np.zeros(3))
    policy = EdgePolicy(graph, np.zeros(4))
    for bad in ([0.0, np.nan, 0.0], [np.inf, 0.0, 0.0], [0.0, 0.0], [[0.0, 0.0, 0.0]]):
        with pytest.raises(ValueError, match=r"expected a finite observation \[3\]"):
            policy.act(np.asarray(bad))
    with pytest.raises(ValueError, match="its action is not finite"):
        policy.act(np.full(3, 3e38, np.float32))
    assert policy.step == 0
    assert np.isfinite(policy.act([1.0, 2.0, 3.0])).all()


def test_limits_are_kept_from_step_to_step(graph: bytes) -> None:
    """Broken on purpose: without the step before; seen: a change of 0.7."""
    draw, context = np.random.default_rng(1), np.ones(4)
    limits = ActionLimits((-0.5, -0.25), (0.5, 1.0), (0.125, 0.03))
    edge, free = (EdgePolicy(graph, context, seed=SEED, limits=one) for one in (limits, None))
    actions, freely, said = [], [], []
    for _ in range(20):
        observation = 3.0 * draw.standard_normal(3)
        actions.append(edge.act(observation))
        freely.append(free.act(observation))
        said.append(edge.limited)
    assert (np.abs(np.diff(np.array(actions, np.float64), axis=0)) <= np.array(limits.max_change)).all()
    assert (np.clip(actions, limits.low, limits.high) == actions).all()
    assert said == [bool((a != b).any()) for a, b in zip(actions, freely, strict=True)]
    edge.reset()
    free.reset()
    first = np.clip(free.act(observation), np.array(limits.low, np.float32), np.array(limits.high, np.float32))
    assert np.array_equal(edge.act(observation), first)
    edge.previous_action = np.array([0.5, 1.0], np.float32)  # something else has acted
    assert (edge.act(observation) >= np.array([0.375, 0.97])).all()


def test_a_step_of_limited_changes_is_repeated_and_needs_the_one_before(graph: bytes) -> None:
    edge = EdgePolicy(graph, np.ones(4), seed=SEED, limits=ActionLimits((-1.0, -1.0), (1.0, 1.0), (0.1, 0.1)))
    actions = [edge.act_at([2.0, -1.0, 3.0], 0, step, False) for step in range(3)]
    assert np.array_equal(edge.act_at([2.0, -1.0, 3.0], 0, 1, False), actions[1])
    with pytest.raises(ValueError, match="step 6 of episode 0 is not known"):
        edge.act_at([2.0, -1.0, 3.0], 0, 7, False)


def test_limits_that_do_not_fit_the_graph_are_refused(graph: bytes) -> None:
    for wrong in (ActionLimits(), ActionLimits((0.0,), (1.0,))):
        with pytest.raises(ValueError, match=r"expected limits with low and high \[2\]"):
            EdgePolicy(graph, np.zeros(4), limits=wrong)
