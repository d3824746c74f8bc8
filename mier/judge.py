"""The best policy of a fine-tune, as imagined episodes tell: more updates are not always better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from mier.checkpoint import Checkpoint
from mier.networks import Policy
from mier.types import Transitions
from mier.weights import PolicyWeights
from mier.world import World, episode_starts, imagined_returns

_STORED_STARTS = 30


@dataclass(frozen=True)
class Judge:
    """Plays deterministic episodes in the adapted model's world, always from the same real first states."""

    world: World
    starts: Tensor
    """[n, observation_dim]"""
    steps: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, world: World, transitions: Transitions, steps: int) -> Self:
        """From the first states of the task's own episodes in `transitions` [n, dim], and of some stored ones."""
        buffer = checkpoint.relabel_buffer
        first = torch.searchsorted(buffer.episode, torch.arange(len(buffer.task)))
        stored = first[torch.linspace(0, len(first) - 1, min(_STORED_STARTS, len(first))).long()]
        own = transitions.observation[episode_starts(transitions)]
        return cls(world, torch.cat([own, buffer.transitions.observation[stored]]), steps)

    def mean_return(self, policy: Policy, context: Tensor) -> float:
        """Of the policy under a context [context_dim]; -inf where the model blew up."""
        return self.returns(policy, context).mean().item()

    def returns(self, policy: Policy, context: Tensor) -> Tensor:
        """The same of each start, [n]."""
        rows = context.expand(len(self.starts), -1)
        noise = torch.zeros(len(self.starts), self.world.spec.action_dim)

        def act(states: Tensor) -> Tensor:
            return self.world.spec.from_unit_action(policy(states, rows, noise))

        return imagined_returns(self.world, act, self.starts, self.steps)


@dataclass(frozen=True)
class Best:
    """The best policy so far."""

    imagined_return: float
    updates: int
    """After so many; 0 is the start."""
    weights: PolicyWeights

    def to_tree(self) -> dict[str, Any]:
        """As a fine-tune's save keeps it."""
        return {
            "imagined_return": self.imagined_return,
            "updates": self.updates,
            "state": self.weights.state,
            "context": torch.from_numpy(self.weights.context),
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        weights = PolicyWeights(dict(tree["state"]), tree["context"].numpy())
        return cls(tree["imagined_return"], tree["updates"], weights)
