"""Where a policy should start on a new task: the best known behaviour, as the adapted model judges it.

Far outside the training tasks the adapted context serves the model, not the policy: networks are saturated there, and
fine-tuning from it was seen to gain nothing. So the model keeps the adapted context, and the policy gets its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mier.adaptation import Adaptation
from mier.checkpoint import Checkpoint
from mier.config import AdaptConfig, OutOfReach
from mier.networks import DynamicsModel, Policy
from mier.relabel import best_known_context, relabel_rewards
from mier.types import Transitions, Varies
from mier.world import World, imagined_returns

_IMAGINED_STEPS = 25
_IMAGINED_STARTS = 40


def warm_start_context(
    checkpoint: Checkpoint, model: DynamicsModel, context: Tensor, transitions: Transitions
) -> Tensor:
    """[context_dim], the policy context of the best known behaviour on the task that `context` stands for.

    Only the reward varies: that of the training task whose stored episodes, relabelled, score best.
    The dynamics vary: that of the adapted, the same held within the range of the training contexts, the prior and all
    training contexts which does best in short model rollouts from the task's own states.

    Args:
        transitions: [n, dim] of the new task.
    """
    agent, buffer = checkpoint.agent, checkpoint.relabel_buffer
    if checkpoint.spec.varies is Varies.REWARD:
        relabelled = relabel_rewards(model, context, buffer.transitions)
        return best_known_context(buffer, relabelled.reward, agent.training_contexts)
    known = agent.training_contexts
    # Entries that training tasks never moved mean nothing to the policy, though the model may read them well: a joint
    # that only the new task negates. Held within the known range the rest of the context still serves.
    within = context.clamp(known.min(0).values, known.max(0).values)
    candidates = torch.cat([context[None], within[None], agent.prior_context[None], known])
    starts = transitions.observation[:: max(1, transitions.size // _IMAGINED_STARTS)]
    return candidates[int(_imagined(World(agent.spec, model, context), agent.policy, candidates, starts).argmax())]


def _imagined(world: World, policy: Policy, contexts: Tensor, starts: Tensor) -> Tensor:
    """Mean imagined return [candidates] of the policy under each of contexts [candidates, context_dim]."""
    rows, noise = contexts.repeat_interleave(len(starts), 0), torch.zeros(len(contexts) * len(starts), 1)

    def act(states: Tensor) -> Tensor:
        return world.spec.from_unit_action(policy(states, rows, noise.expand(-1, world.spec.action_dim)))

    returns = imagined_returns(world, act, starts.repeat(len(contexts), 1), _IMAGINED_STEPS)
    return returns.view(len(contexts), -1).mean(-1)


def out_of_reach(config: AdaptConfig, ood_score: float) -> bool:
    """Whether an adapted context lies where the policy cannot follow it."""
    return config.ood_threshold is not None and ood_score > config.ood_threshold


def policy_context_after(
    checkpoint: Checkpoint, adaptation: Adaptation, transitions: Transitions, model: DynamicsModel | None = None
) -> Tensor:
    """[context_dim], the context that the checkpoint's own policy should act under after an adaptation.

    The adapted one as far as the policy can follow; beyond `AdaptConfig.ood_threshold` what `AdaptConfig.out_of_reach`
    names.

    Args:
        model: judges known behaviour; the checkpoint's own if None.
    """
    agent = checkpoint.agent
    config, context = agent.configuration.adapt, torch.from_numpy(adaptation.context)
    if config.ood_threshold is None or not out_of_reach(config, adaptation.ood_score):
        return context
    if config.out_of_reach is OutOfReach.HOLD:
        return torch.lerp(agent.training_contexts.mean(0), context, config.ood_threshold / adaptation.ood_score)
    return warm_start_context(checkpoint, model or agent.model, context, transitions)
