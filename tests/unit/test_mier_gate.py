"""The gate tells better policies from worse ones, by networks that no policy was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from mier.adaptation import InsufficientData
from mier.calibration import Calibration, GateThresholds
from mier.checkpoint import Checkpoint, decode, encode
from mier.gate import Comparison, Verdict, compare
from mier.types import Transitions
from mier.weights import PolicyWeights
from mier_trainer.fit_gate import fit_gate

ZERO = GateThresholds(promote_above=0.0, reject_below=0.0, candidates=0)
Ready = tuple[Checkpoint, Transitions]


@pytest.fixture
def gated(ready: Ready, transitions: Callable[..., Transitions]) -> Ready:
    """A checkpoint with a gate that learned how pushes are rewarded, of a body that cannot fall; and rows of a task."""
    checkpoint, _ = ready
    # Its stored rows are all of one task, whatever they are labelled.
    checkpoint.agent.training_contexts.zero_()
    agent = fit_gate(checkpoint, steps=300, seed=1).freeze()
    agent = replace(agent, spec=replace(agent.spec, healthy_ranges=()))
    return replace(checkpoint, agent=agent), transitions(checkpoint.spec, 120, 3)


def pushing(checkpoint: Checkpoint, unit_action: float) -> PolicyWeights:
    """A policy that does the same in every state."""
    weights = PolicyWeights.of(checkpoint.agent)
    state = dict(weights.state)
    state["policy.head.weight"] = torch.zeros_like(state["policy.head.weight"])
    bias = torch.zeros_like(state["policy.head.bias"])
    bias[: checkpoint.spec.action_dim] = np.arctanh(unit_action)
    return PolicyWeights(state | {"policy.head.bias": bias}, weights.context)


def test_what_is_pushed_the_rewarded_way_is_promoted_and_the_other_way_rejected(gated: Ready) -> None:
    """Broken on purpose: with candidate and incumbent exchanged in the difference, both verdicts turn round."""
    checkpoint, rows = gated
    forth, back = pushing(checkpoint, 0.9), pushing(checkpoint, -0.9)
    up, down = compare(checkpoint, back, forth, rows), compare(checkpoint, forth, back, rows)
    assert (up.verdict(ZERO), down.verdict(ZERO)) == (Verdict.PROMOTE, Verdict.REJECT)
    assert up.candidate_return == pytest.approx(down.incumbent_return)
    assert up.lowest_difference == pytest.approx(-down.highest_difference)
    assert up.steps == checkpoint.spec.horizon_steps
    out_of_doubt = GateThresholds(up.lowest_difference + 1.0, down.highest_difference - 1.0, 0)
    assert {up.verdict(out_of_doubt), down.verdict(out_of_doubt)} == {Verdict.INSUFFICIENT_DATA}


def test_equals_are_neither_better_nor_worse(gated: Ready) -> None:
    checkpoint, rows = gated
    same = pushing(checkpoint, 0.3)
    found = compare(checkpoint, same, same, rows)
    assert (found.lowest_difference, found.highest_difference) == (0.0, 0.0)
    assert found.verdict(ZERO) is Verdict.INSUFFICIENT_DATA


def test_the_model_that_policies_are_trained_on_has_no_say(gated: Ready) -> None:
    """Broken on purpose: with `agent.model` in place of `agent.gate_model` the returns are others."""
    checkpoint, rows = gated
    forth, back = pushing(checkpoint, 0.9), pushing(checkpoint, -0.9)
    before = compare(checkpoint, back, forth, rows)
    with torch.no_grad():
        for module in (checkpoint.agent.model, checkpoint.agent.dynamics):
            if module is not None:
                module.head.bias.add_(1.0)
    assert compare(checkpoint, back, forth, rows) == before


def test_a_world_that_blows_up_says_nothing(gated: Ready) -> None:
    checkpoint, rows = gated
    assert checkpoint.agent.gate_model is not None
    with torch.no_grad():
        checkpoint.agent.gate_model.target_norm.std[0] = torch.inf
    found = compare(checkpoint, pushing(checkpoint, -0.9), pushing(checkpoint, 0.9), rows)
    assert found.verdict(ZERO) is Verdict.INSUFFICIENT_DATA
    assert found.to_json()["lowest_difference"] is None


def test_too_few_held_out_transitions_are_said(gated: Ready) -> None:
    checkpoint, rows = gated
    policy = pushing(checkpoint, 0.1)
    with pytest.raises(InsufficientData, match="at least 20 held-out transitions, came 16"):
        compare(checkpoint, policy, policy, rows.rows(slice(0, 80)))


def test_a_checkpoint_without_a_gate_says_how_to_get_one(ready: Ready) -> None:
    checkpoint, rows = ready
    policy = PolicyWeights.of(checkpoint.agent)
    with pytest.raises(ValueError, match=f"'{checkpoint.name}' has no gate; mier-train calibrate"):
        compare(checkpoint, policy, policy, rows)


def test_a_gate_and_its_thresholds_are_read_back_as_they_were_written(gated: Ready) -> None:
    checkpoint, rows = gated
    thresholds = Calibration(GateThresholds(1.5, -2.0, 40))
    files = encode(checkpoint.agent, checkpoint.relabel_buffer, "gated", {"calibration": thresholds.to_json()})
    read = decode(files)
    assert read.calibration == thresholds
    policy, other = pushing(checkpoint, 0.1), pushing(checkpoint, 0.2)
    again = replace(read, relabel_buffer=checkpoint.relabel_buffer)
    assert compare(again, policy, other, rows) == compare(checkpoint, policy, other, rows)


def test_thresholds_leave_room_for_chance() -> None:
    with pytest.raises(ValueError, match=r"expected reject_below <= 0 <= promote_above, came 1\.0 and 2\.0"):
        GateThresholds(2.0, 1.0, 3)
    with pytest.raises(ValueError, match=r"came -2\.0 and -1\.0"):
        GateThresholds(-1.0, -2.0, 3)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.01, 3.0, Verdict.PROMOTE),
        (1.0, 3.0, Verdict.INSUFFICIENT_DATA),
        (-9.0, -2.0, Verdict.INSUFFICIENT_DATA),
        (-9.0, -2.01, Verdict.REJECT),
    ],
)
def test_verdicts_by_hand(low: float, high: float, verdict: Verdict) -> None:
    assert Comparison(0.0, 0.0, low, high, 8, 20).verdict(GateThresholds(1.0, -2.0, 1)) is verdict
