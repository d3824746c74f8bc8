"""Configurations through JSON, and what is refused."""

from __future__ import annotations

import json

import pytest

from mier.config import (
    AdaptConfig,
    AdaptMethod,
    Conditioning,
    Configuration,
    FineTuneConfig,
    ModelConfig,
    SacConfig,
)

UNUSUAL = Configuration(
    name="unusual",
    model=ModelConfig(context_dim=7, hidden=(3, 2), conditioning=Conditioning.FILM, action_gate=True, log_var_min=-3.5),
    adapt=AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, learned_rate=True, damping=0.25, ood_threshold=4.5),
    sac=SacConfig(hidden=(5,), reward_scale=2.0, target_entropy=-3.0),
    finetune=FineTuneConfig(updates=7, cross_task=False, warm_start=False, model_steps=3),
)


@pytest.mark.parametrize("configuration", [Configuration(), UNUSUAL], ids=["default", "unusual"])
def test_json_round_trip(configuration: Configuration) -> None:
    again = Configuration.from_json(json.loads(json.dumps(configuration.to_json())))
    assert again == configuration
    assert type(again.model.hidden) is tuple
    assert type(again.model.conditioning) is Conditioning
    assert type(again.adapt.method) is AdaptMethod


def test_what_json_leaves_out_has_its_default() -> None:
    assert Configuration.from_json({"sac": {"discount": 0.9}}) == Configuration(sac=SacConfig(discount=0.9))


@pytest.mark.parametrize(
    ("value", "where"), [({"modle": {}}, "Configuration"), ({"model": {"hiden": [4]}}, "ModelConfig")]
)
def test_unknown_keys_are_refused_by_name(value: dict[str, object], where: str) -> None:
    with pytest.raises(ValueError, match=rf"{where}: unknown keys \['(modle|hiden)'\]; known are .*'"):
        Configuration.from_json(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"adapt": {"method": "closed_form"}}, "needs the linear_head"),
        ({"adapt": {"method": "telepathy"}}, "telepathy"),
        ({"model": {"log_var_min": 0.5}}, "must be below log_var_max"),
        ({"model": {"conditioning": "linear_head", "action_gate": True}}, "action_gate needs concat or film"),
        ({"adapt": {"min_transitions": 4}}, "at least 5"),
        ({"adapt": {"holdout_fraction": 0.9}}, "holdout_fraction"),
        ({"adapt": {"steps": 0}}, "steps must be at least 1, came 0"),
        ({"finetune": {"batch_size": 0}}, "batch_size must be at least 1, came 0"),
        ({"finetune": {"relabel_every_updates": 0}}, "relabel_every_updates must be at least 1"),
        ({"finetune": {"relabel_transitions": 0}}, "relabel_transitions must be at least 1"),
        ({"finetune": {"rollout_steps": 0}}, "rollout_steps must be at least 1"),
        ({"finetune": {"best_share": 0.0}}, "best_share must be above 0"),
        ({"finetune": {"final_rate": 1.5}}, "final_rate must be above 0 and at most 1"),
        ({"finetune": {"own_starts": 1.5}}, "own_starts must be 0 to 1"),
        ({"finetune": {"real_fraction": 1.01}}, "real_fraction must be 0 to 1"),
        ({"finetune": {"learning_rate": 0.0}}, "learning_rate must be above 0"),
    ],
)
def test_values_that_could_not_work_are_refused(value: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Configuration.from_json(value)
