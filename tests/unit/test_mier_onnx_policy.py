"""The exported policy is the torch policy: any batch size, own context per row, within bounds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from mier import onnx_policy
from mier.checkpoint import Checkpoint
from mier.weights import PolicyWeights

Floats = NDArray[np.float32]
Run = Callable[[Floats, Floats, Floats], Floats]


@pytest.fixture
def run(dynamics_checkpoint: Checkpoint, exported: bytes) -> Run:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])

    def call(observation: Floats, context: Floats, noise: Floats) -> Floats:
        (action,) = session.run(["action"], {"observation": observation, "context": context, "noise": noise})
        found: Floats = action
        return found

    return call


_EXPORTED: list[bytes] = []


@pytest.fixture
def exported(dynamics_checkpoint: Checkpoint) -> bytes:
    """Once for all tests here: tracing takes seconds, and the checkpoint is the same each time."""
    if not _EXPORTED:
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        agent = dynamics_checkpoint.agent
        _EXPORTED.append(onnx_policy.export(PolicyWeights.of(agent), agent))
    return _EXPORTED[0]


def drawn(n: int, seed: int, scale: float = 1.0) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    observation, context, noise = (scale * rng.standard_normal((n, d), np.float32) for d in (3, 4, 2))
    return observation, context, noise


@pytest.mark.parametrize("n", [1, 2, 3, 17, 256])
def test_it_equals_the_torch_policy(dynamics_checkpoint: Checkpoint, run: Run, n: int) -> None:
    agent, inputs = dynamics_checkpoint.agent, drawn(n, n)
    expected = agent.spec.from_unit_action(agent.policy(*(torch.from_numpy(x) for x in inputs)))
    found = run(*inputs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=0.0)


def test_rows_do_not_meet(run: Run) -> None:
    inputs = drawn(6, 0)
    together = run(*inputs)
    for i in range(6):
        alone = run(*(x[i : i + 1] for x in inputs))
        np.testing.assert_allclose(together[i], alone[0], atol=1e-6)


def test_context_and_noise_matter(run: Run) -> None:
    observation, context, noise = drawn(4, 0)
    base = run(observation, context, noise)
    assert np.abs(run(observation, context + 1.0, noise) - base).max() > 1e-3
    assert np.abs(run(observation, context, np.zeros_like(noise)) - base).max() > 1e-3


def test_actions_stay_within_bounds(dynamics_checkpoint: Checkpoint, run: Run) -> None:
    low, high = (
        np.asarray(b, np.float32) for b in (dynamics_checkpoint.spec.action_low, dynamics_checkpoint.spec.action_high)
    )
    observation, context, noise = drawn(500, 0, scale=100.0)
    action = run(observation, context, noise)
    assert (action >= low).all()
    assert (action <= high).all()
    # Saturated at both ends of both actions, so that the bounds were really tried.
    assert (action.min(0) < low + 1e-3).all()
    assert (action.max(0) > high - 1e-3).all()


def test_the_graph_is_valid_self_contained_and_named(exported: bytes) -> None:
    model = onnx.load_from_string(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == ["observation", "context", "noise"]
    assert [o.name for o in model.graph.output] == ["action"]
    assert not any(t.external_data for t in model.graph.initializer)


def test_weights_keep_their_names_in_the_graph(dynamics_checkpoint: Checkpoint, exported: bytes) -> None:
    """The service puts new weights into a graph by name instead of tracing anew."""
    held = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load_from_string(exported).graph.initializer}
    for name, value in PolicyWeights.of(dynamics_checkpoint.agent).state.items():
        if name.startswith("policy."):
            np.testing.assert_array_equal(held[name], value.numpy(), err_msg=name)


def test_exporting_again_gives_the_same_bytes(dynamics_checkpoint: Checkpoint, exported: bytes) -> None:
    agent = dynamics_checkpoint.agent
    assert onnx_policy.export(PolicyWeights.of(agent), agent) == exported


def test_it_says_nothing_of_the_machine_that_made_it(exported: bytes) -> None:
    """Broken on purpose: with the exporter's stack traces left in, it names the folder that this code is in."""
    for place in (Path(onnx_policy.__file__).parent, Path(torch.__file__).parent):
        assert str(place).encode() not in exported
