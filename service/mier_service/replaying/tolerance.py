"""What counts as the same: every bit on one build and CPU kind; a stated distance elsewhere (ADR 0025)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mier.agent import Agent
from mier.weights import PolicyWeights
from mier_service.transition_matrix import FloatArray

CONTEXT_STDS = 0.01
"""Of the training tasks' contexts, entry by entry: so far two contexts may lie apart."""
SCORE_SHARE = 0.01
"""Of its size, or of 1 where it is smaller: so far apart two scores or errors may be."""
ACTION_SHARE = 0.1
"""Of an action's range, on average over observations: so far apart two fine-tuned policies may act. Learning magnifies
the last bit of its first step."""
_OBSERVATIONS = 1000


@dataclass(frozen=True)
class Distance:
    """How far what was made again is from what is stored, in units of what is tolerated."""

    of: str
    value: float
    tolerated: float

    @property
    def within(self) -> bool:
        return self.value <= self.tolerated  # so that NaN is not

    def __str__(self) -> str:
        return f"{self.of} {self.value:.2g} apart, {self.tolerated:g} tolerated"


def between_contexts(agent: Agent, made: FloatArray, stored: FloatArray) -> Distance:
    """[context_dim] both."""
    spread = agent.training_contexts.std(0, correction=0).clamp_min(1e-3).numpy()
    away = float(np.abs((made - stored) / spread).max()) if made.shape == stored.shape else np.inf
    return Distance("contexts (in deviations of the training tasks')", away, CONTEXT_STDS)


def between_scores(made: list[float | None], stored: list[float | None]) -> Distance:
    """Errors and scores of an adaptation; one that is not a number on one side only is infinitely far."""
    away = 0.0
    for ours, theirs in zip(made, stored, strict=True):
        if ours is None or theirs is None:
            away = away if ours is theirs else np.inf
        else:
            away = max(away, abs(ours - theirs) / max(1.0, abs(theirs)))
    return Distance("scores", away, SCORE_SHARE)


def between_policies(agent: Agent, made: PolicyWeights, stored: PolicyWeights, observations: FloatArray) -> Distance:
    """By their mean actions in observations [n, observation_dim] of the session, the newest."""
    states = torch.from_numpy(np.ascontiguousarray(observations[-_OBSERVATIONS:]))
    noise = torch.zeros(len(states), agent.spec.action_dim)
    with torch.inference_mode():
        mine, theirs = (
            weights.load_policy(agent)(states, torch.from_numpy(weights.context).expand(len(states), -1), noise)
            for weights in (made, stored)
        )
    return Distance("mean actions (in shares of their range)", (mine - theirs).abs().mean().item() / 2.0, ACTION_SHARE)


def same_bits(made: FloatArray, stored: FloatArray) -> bool:
    return made.astype("<f4").tobytes() == stored.astype("<f4").tobytes()
