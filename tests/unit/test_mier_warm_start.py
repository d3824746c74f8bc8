"""The policy's own context: the best known behaviour of the adapted model's judgement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from mier.adaptation import Adaptation
from mier.agent import Agent
from mier.checkpoint import Checkpoint
from mier.config import OutOfReach
from mier.relabel import relabel_rewards
from mier.types import Transitions
from mier.warm_start import policy_context_after, warm_start_context
from mier.world import World, imagined_returns

Make = Callable[..., Transitions]


def test_where_the_reward_varies_it_is_a_training_tasks_context(
    reward_checkpoint: Checkpoint, transitions: Make
) -> None:
    agent, buffer = reward_checkpoint.agent, reward_checkpoint.relabel_buffer
    rows, chosen = transitions(reward_checkpoint.spec, 40), set()
    for seed in range(8):
        context = 3.0 * torch.randn(4, generator=torch.Generator().manual_seed(seed))
        found = warm_start_context(reward_checkpoint, agent.model, context, rows)
        reward = relabel_rewards(agent.model, context, buffer.transitions).reward
        means = [
            np.mean([reward[buffer.episode == e].sum() for e in range(6) if buffer.task[e] == task])
            for task in range(3)
        ]
        best = int(np.argmax(means))
        assert torch.equal(found, agent.training_contexts[best])
        chosen.add(best)
    assert len(chosen) > 1  # the choice depends on the task


def _act(agent: Agent, context: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    unit = agent.policy(states, context.expand(len(states), -1), torch.zeros(len(states), 2))
    return agent.spec.from_unit_action(unit)


def test_where_the_dynamics_vary_it_is_the_best_imagined_candidate(
    dynamics_checkpoint: Checkpoint, transitions: Make
) -> None:
    agent, rows = dynamics_checkpoint.agent, transitions(dynamics_checkpoint.spec, 40)
    known, chosen = agent.training_contexts, set()
    for seed in range(12):
        context = 2.0 * torch.randn(4, generator=torch.Generator().manual_seed(seed))
        found = warm_start_context(dynamics_checkpoint, agent.model, context, rows)
        within = torch.minimum(torch.maximum(context, known.amin(0)), known.amax(0))
        candidates = torch.cat([context[None], within[None], agent.prior_context[None], known])
        world = World(agent.spec, agent.model, context)
        returns = [
            imagined_returns(
                world,
                partial(_act, agent, own),
                rows.observation,
                25,
            ).mean()
            for own in candidates
        ]
        best = int(torch.stack(returns).argmax())
        assert torch.equal(found, candidates[best])
        chosen.add(best)
    assert {0, 1} < chosen  # adapted, held within the known range, and others: each wins somewhere


def adaptation(score: float) -> Adaptation:
    return Adaptation(np.array([0.5, -2.0, 0.0, 1.0], np.float32), 0.0, 0.0, score, 40)


def with_threshold(
    checkpoint: Checkpoint, threshold: float | None, beyond: OutOfReach = OutOfReach.BEST_KNOWN
) -> Checkpoint:
    agent = checkpoint.agent
    adapt = replace(agent.configuration.adapt, ood_threshold=threshold, out_of_reach=beyond)
    return replace(checkpoint, agent=replace(agent, configuration=replace(agent.configuration, adapt=adapt)))


def test_within_the_threshold_the_policy_follows_the_adapted_context(
    reward_checkpoint: Checkpoint, dynamics_checkpoint: Checkpoint, transitions: Make
) -> None:
    adapted = torch.tensor([0.5, -2.0, 0.0, 1.0])
    for checkpoint in (reward_checkpoint, dynamics_checkpoint):
        rows = transitions(checkpoint.spec, 40)
        for threshold, score in [(None, 99.0), (2.0, 2.0)]:
            found = policy_context_after(with_threshold(checkpoint, threshold), adaptation(score), rows)
            assert torch.equal(found, adapted)


def test_beyond_it_the_context_is_held_at_the_threshold(reward_checkpoint: Checkpoint, transitions: Make) -> None:
    rows = transitions(reward_checkpoint.spec, 40)
    known = reward_checkpoint.agent.training_contexts
    adapted, middle = torch.tensor([0.5, -2.0, 0.0, 1.0]), known.mean(0)
    score = ((adapted - middle) / known.std(0, correction=0).clamp_min(1e-3)).square().mean().sqrt().item()
    held = with_threshold(reward_checkpoint, 0.4 * score, OutOfReach.HOLD)
    found = policy_context_after(held, adaptation(score), rows)
    torch.testing.assert_close(found - middle, 0.4 * (adapted - middle))


def test_beyond_it_the_policy_gets_the_best_known_behaviour(
    reward_checkpoint: Checkpoint, dynamics_checkpoint: Checkpoint, transitions: Make
) -> None:
    adapted = torch.tensor([0.5, -2.0, 0.0, 1.0])
    for checkpoint in (reward_checkpoint, dynamics_checkpoint):
        rows, model = transitions(checkpoint.spec, 40), checkpoint.agent.model
        found = policy_context_after(with_threshold(checkpoint, 2.0), adaptation(2.1), rows)
        assert torch.equal(found, warm_start_context(checkpoint, model, adapted, rows))
