"""The spec's JSON and its rules, action units, batches of transitions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mier.types import EnvSpec, HealthyRange, Transitions, Varies


def test_spec_survives_json(dynamics_spec: EnvSpec) -> None:
    again = EnvSpec.from_json(json.loads(json.dumps(dynamics_spec.to_json())))
    assert again == dynamics_spec
    assert isinstance(again.varies, Varies)
    assert isinstance(again.healthy_ranges[0], HealthyRange)


def test_spec_refuses_unknown_keys(reward_spec: EnvSpec) -> None:
    with pytest.raises(ValueError, match=r"EnvSpec: unknown keys \['gravity'\]"):
        EnvSpec.from_json(reward_spec.to_json() | {"gravity": 9.81})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_low": (-1.0,)}, "2 action names need as many bounds, came 1 low and 2 high"),
        ({"action_low": (-1.0, 2.0)}, "every action_low must be below"),
    ],
)
def test_spec_refuses_bounds_that_do_not_fit(reward_spec: EnvSpec, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvSpec.from_json(reward_spec.to_json() | change)


def test_unit_actions_span_asymmetric_bounds(reward_spec: EnvSpec) -> None:
    unit = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [0.5, -0.5]])
    own = torch.tensor([[-1.0, -0.5], [1.0, 2.0], [0.0, 0.75], [0.5, 0.125]])
    torch.testing.assert_close(reward_spec.from_unit_action(unit), own)
    torch.testing.assert_close(reward_spec.to_unit_action(own), unit)


def test_a_saturated_action_stays_within_awkward_bounds(reward_spec: EnvSpec) -> None:
    # Bounds for which low + 0.5 (1 + 1) (high - low) is above high in float32.
    draw = torch.Generator().manual_seed(0)
    low = torch.rand(200, generator=draw, dtype=torch.float64) - 0.5
    high = low + torch.rand(200, generator=draw, dtype=torch.float64) + 0.1
    spec = replace(
        reward_spec,
        action_names=tuple(f"a{i}" for i in range(200)),
        action_low=tuple(low.tolist()),
        action_high=tuple(high.tolist()),
    )
    assert (spec.from_unit_action(torch.ones(200)) <= high.float()).all()
    assert (spec.from_unit_action(-torch.ones(200)) >= low.float()).all()


def test_a_fall_is_a_healthy_entry_outside_its_closed_range(dynamics_spec: EnvSpec) -> None:
    spec = replace(dynamics_spec, healthy_ranges=(HealthyRange(0, -1.5, 1.5), HealthyRange(2, -5.0, 0.0)))
    states = torch.tensor(
        [
            [0.0, 9.0, -1.0],
            [1.5, 0.0, 0.0],
            [1.6, 0.0, -1.0],
            [0.0, 0.0, 0.1],
            [-2.0, 0.0, 1.0],
            [torch.nan, 0.0, -1.0],
        ]
    )
    assert spec.terminated(states).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert replace(spec, healthy_ranges=()).terminated(states).tolist() == [0.0] * 6


def test_transitions_keep_their_fields_together(reward_spec: EnvSpec, transitions: Callable[..., Transitions]) -> None:
    rows = transitions(reward_spec, 10)
    assert rows.size == 10
    picked = rows.rows(torch.tensor([7, 2]))
    for field, whole in zip(picked, rows, strict=True):
        assert torch.equal(field, whole[[7, 2]])
    again = Transitions.concatenate([rows.rows(slice(0, 4)), rows.rows(slice(4, None))])
    assert all(torch.equal(a, b) for a, b in zip(again, rows, strict=True))
