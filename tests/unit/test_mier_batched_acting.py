"""A tick of many sessions equals one call for each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mier.batched_acting import StackedPolicies, Tick
from mier.config import SacConfig
from mier.networks import Policy
from mier.types import EnvSpec

CONFIG = SacConfig(hidden=(16, 16))


def policy_of(spec: EnvSpec, config: SacConfig = CONFIG) -> Policy:
    policy = Policy(spec, 3, config)
    for norm in (policy.observation_norm, policy.context_norm):
        norm.mean.normal_()
        norm.std.uniform_(0.5, 2.0)
    return policy.eval().requires_grad_(False)


def inputs(spec: EnvSpec, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(n, spec.observation_dim), 2.0 * torch.randn(n, 3), torch.randn(n, spec.action_dim)


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("own_rows", [(), (0, 3, 8), tuple(range(9))])
def test_a_tick_is_its_sessions_one_by_one(reward_spec: EnvSpec, frame: bool, own_rows: tuple[int, ...]) -> None:
    config = replace(CONFIG, actuator_frame=frame)
    shared, own = policy_of(reward_spec, config), {i: policy_of(reward_spec, config) for i in own_rows}
    observation, contexts, noise = inputs(reward_spec, 9)
    tick = Tick(reward_spec, shared, contexts, own)
    for drawn in (noise, torch.zeros_like(noise)):
        together = tick.act(observation, drawn)
        for i in range(9):
            alone = own.get(i, shared)(observation[i : i + 1], contexts[i : i + 1], drawn[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], reward_spec.from_unit_action(alone), rtol=0.0, atol=1e-5)


def test_later_changes_of_a_policy_do_not_reach_a_tick(reward_spec: EnvSpec) -> None:
    own = policy_of(reward_spec)
    tick = Tick(reward_spec, policy_of(reward_spec), torch.zeros(2, 3), {1: own})
    observation, _, noise = inputs(reward_spec, 2)
    before = tick.act(observation, noise)
    for parameter in own.parameters():
        parameter.zero_()
    assert torch.equal(tick.act(observation, noise), before)


def test_what_does_not_fit_is_refused(reward_spec: EnvSpec) -> None:
    shared = policy_of(reward_spec)
    with pytest.raises(ValueError, match=r"sessions 0 to 1, came \[2\]"):
        Tick(reward_spec, shared, torch.zeros(2, 3), {2: shared})
    with pytest.raises(ValueError, match="at least one policy"):
        StackedPolicies([])
    with pytest.raises(ValueError, match=r"expected observations \[2, 3\], came \[1, 3\]"):
        Tick(reward_spec, shared, torch.zeros(2, 3), {}).act(torch.zeros(1, 3), torch.zeros(1, 2))
