"""The gate: may a candidate take the incumbent's place?

Both play deterministic episodes of the environment's whole length, from the same real first states. A model flatters
the policy that was trained on it, so the worlds they play in are of networks that no policy was trained on; one world
is adapted to the task's held-out transitions, one to the rest. How much flattery is left is known from candidates whose
true returns were measured (`mier.calibration`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import torch
from torch import Tensor

from mier.adaptation import InsufficientData, adapt, split_holdout
from mier.agent import Agent
from mier.calibration import GateThresholds
from mier.checkpoint import Checkpoint
from mier.judge import Judge
from mier.types import Transitions
from mier.weights import PolicyWeights
from mier.world import World

_Z = 1.645
"""One-sided 95%."""


class Verdict(StrEnum):
    PROMOTE = "promote"
    REJECT = "reject"
    INSUFFICIENT_DATA = "insufficient_data"


@dataclass(frozen=True)
class Comparison:
    """Imagined returns of candidate and incumbent, in environment units of reward."""

    incumbent_return: float
    """Mean over starts and worlds."""
    candidate_return: float
    lowest_difference: float
    """Lower 95% bound of candidate less incumbent over starts, in the world that flatters the candidate least."""
    highest_difference: float
    """Upper 95% bound, in the world that flatters it most."""
    starts: int
    steps: int

    def verdict(self, thresholds: GateThresholds) -> Verdict:
        if self.lowest_difference > thresholds.promote_above:
            return Verdict.PROMOTE
        if self.highest_difference < thresholds.reject_below:
            return Verdict.REJECT
        return Verdict.INSUFFICIENT_DATA

    def to_json(self) -> dict[str, Any]:
        """None for what is not finite."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


@dataclass(frozen=True)
class Gate:
    """The worlds of one task."""

    agent: Agent
    judges: tuple[Judge, ...]
    """One a world, all from the same starts."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, transitions: Transitions) -> Self:
        """Adapted to transitions [n, dim] of the task.

        Raises:
            InsufficientData: too few held-out transitions to adapt a world to.
            ValueError: the checkpoint has no gate.
        """
        agent = checkpoint.agent
        model, config = agent.gate_model, agent.configuration.adapt
        if model is None:
            raise ValueError(f"checkpoint '{checkpoint.name}' has no gate; mier-train calibrate gives it one")
        parts = split_holdout(transitions, config.holdout_fraction)
        if (held := parts[1].size) < config.min_transitions:
            raise InsufficientData(
                f"the gate needs at least {config.min_transitions} held-out transitions, came {held}; submit more"
            )

        def judge(rows: Transitions) -> Judge:
            context = torch.from_numpy(adapt(model, rows, config, agent.training_contexts).context)
            world = World(checkpoint.spec, model, context, agent.gate_dynamics)
            return Judge.of(checkpoint, world, transitions, checkpoint.spec.horizon_steps)

        return cls(agent, tuple(judge(rows) for rows in parts))

    def returns(self, weights: PolicyWeights) -> Tensor:
        """Imagined returns [worlds, starts] of a policy; -inf where a world blew up."""
        policy, context = weights.load_policy(self.agent), torch.from_numpy(weights.context)
        return torch.stack([judge.returns(policy, context) for judge in self.judges])

    def compare(self, incumbent: Tensor, candidate: Tensor) -> Comparison:
        """Of `returns` of both."""
        difference = candidate - incumbent
        bounds = [_bounds(of_world) for of_world in difference]
        return Comparison(
            incumbent.mean().item(),
            candidate.mean().item(),
            min(low for low, _ in bounds),
            max(high for _, high in bounds),
            difference.shape[1],
            self.judges[0].steps,
        )


def compare(
    checkpoint: Checkpoint, incumbent: PolicyWeights, candidate: PolicyWeights, transitions: Transitions
) -> Comparison:
    """`Gate.of` the checkpoint for transitions [n, dim] of a task, and its comparison of two policies; raises as it."""
    gate = Gate.of(checkpoint, transitions)
    return gate.compare(gate.returns(incumbent), gate.returns(candidate))


def _bounds(difference: Tensor) -> tuple[float, float]:
    """Of the mean of differences [starts]; a world in which an episode blew up says nothing."""
    if not difference.isfinite().all():
        return -math.inf, math.inf
    mean, error = difference.mean().item(), _Z * (difference.std() / len(difference) ** 0.5).item()
    return mean - error, mean + error
