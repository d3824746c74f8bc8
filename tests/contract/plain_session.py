"""What one session must look like to its callers, worked out alone and in process from the calls that it got.

It knows nothing of other sessions, of caches, of stores and of transports: whatever leaks from one session into another
makes the service differ from it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mier.checkpoint import Checkpoint
from mier.exploration import noise
from mier.finetune import FineTune
from mier.types import Transitions
from mier.warm_start import policy_context_after
from mier.weights import PolicyWeights


@dataclass(frozen=True)
class PlainVersion:
    """A policy version."""

    weights: PolicyWeights
    fine_tuned: bool


@dataclass
class PlainSession:
    """One session."""

    checkpoint: Checkpoint
    seed: int
    transitions: list[Transitions] = field(default_factory=list)
    model_context: tuple[int, np.ndarray] = field(init=False)
    versions: list[PlainVersion] = field(init=False)
    acted: list[int] = field(init=False)
    """Numbers of the versions that were made to act and not rolled back, the active one last."""
    pinned: bool = False
    paused: bool = False

    def __post_init__(self) -> None:
        agent = self.checkpoint.agent
        self.model_context = (0, agent.prior_context.numpy())
        self.versions = [PlainVersion(PolicyWeights.of(agent), fine_tuned=False)]
        self.acted = [1]

    @property
    def active(self) -> int:
        return self.acted[-1]

    @property
    def rows(self) -> Transitions:
        return Transitions.concatenate(self.transitions)

    @property
    def count(self) -> int:
        return sum(part.size for part in self.transitions)

    @property
    def can_learn(self) -> bool:
        return not self.paused and self.count >= self.checkpoint.agent.configuration.adapt.min_transitions

    def adapt(self) -> bool:
        """Whether that published a version."""
        found = self.checkpoint.agent.adapt(self.rows)
        self.model_context = (self.model_context[0] + 1, found.context)
        acting = self.versions[self.active - 1]
        if acting.fine_tuned or self.pinned:
            return False
        own = policy_context_after(self.checkpoint, found, self.rows).numpy()
        self._publish(PlainVersion(PolicyWeights(acting.weights.state, own), fine_tuned=False))
        return True

    def fine_tune(self, updates: int, seed: int) -> None:
        acting = self.versions[self.active - 1]
        config = replace(self.checkpoint.agent.configuration.finetune, updates=updates)
        tuned = FineTune.start(self.checkpoint, acting.weights if acting.fine_tuned else None, self.rows, config, seed)
        tuned.run(updates)
        self._publish(PlainVersion(tuned.result(), fine_tuned=True))

    def promote(self, number: int) -> None:
        if number != self.active:
            self.acted.append(number)

    def action(self, observation: np.ndarray, episode: int | None, step: int) -> np.ndarray:
        """[action_dim]; the mean where there is no episode, else with the noise of that step."""
        spec, weights = self.checkpoint.spec, self.versions[self.active - 1].weights
        drawn = np.zeros(spec.action_dim, np.float32)
        if episode is not None:
            drawn = noise(self.seed, episode, step, spec.action_dim)
        policy = weights.load_policy(self.checkpoint.agent)
        with torch.inference_mode():
            rows = (torch.from_numpy(row)[None] for row in (observation, weights.context, drawn))
            action: np.ndarray = spec.from_unit_action(policy(*rows))[0].numpy()
        return action

    def weights_hash(self, number: int) -> str | None:
        """None for the checkpoint's own, which all its sessions share."""
        version = self.versions[number - 1]
        return hashlib.sha256(version.weights.to_bytes()).hexdigest() if version.fine_tuned else None

    def _publish(self, version: PlainVersion) -> None:
        self.versions.append(version)
        if not self.pinned:
            self.acted.append(len(self.versions))
