"""Candidates whose true worth is known: what the gate says of each, and what the simulator says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from mier.checkpoint import Checkpoint
from mier.config import FineTuneConfig
from mier.finetune import FineTune
from mier.gate import Comparison, Gate
from mier.intervals import mean_interval
from mier.session import Session
from mier.weights import PolicyWeights
from mier_envs.families import Family, Task
from mier_trainer.evaluate import EVALUATION_SEED, play, two_trajectories

_STAGES = 5
"""Of which the first is left out: there the critic alone has learned."""
_BROKEN_UPDATES = 400
_NOISE = (0.003, 0.01, 0.03)
"""Standard deviations of what is added to a policy's weights, in those of each weight matrix."""
_SCALES = (0.8, 0.9, 1.1)
"""Of the policy's context."""


@dataclass(frozen=True)
class Trial:
    """One candidate against the incumbent, the policy after context adaptation."""

    task: str
    seed: int
    candidate: str
    comparison: Comparison
    true_difference: float
    """Of mean deterministic return over paired episodes, candidate less incumbent."""
    true_low: float
    """95% interval over episodes."""
    true_high: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"comparison": self.comparison.to_json()}


def gate_trials(
    checkpoint: Checkpoint, family: Family, task: Task, *, seed: int, episodes: int, broken: bool
) -> Iterator[Trial]:
    """Two trajectories of a task, then candidates: stages of fine-tunes, and policies a little off.

    Args:
        broken: also stages of fine-tunes gone wrong (ten times the rate, no critic phase), and policies far off.
    """
    session = Session(checkpoint, seed)
    rng, generator = np.random.default_rng([seed, 1]), torch.Generator().manual_seed(1000 * seed + 1)
    two_trajectories(session, family, task, rng, generator)
    incumbent, transitions = session.active.weights, session.transitions
    assert transitions is not None

    def true_returns(weights: PolicyWeights) -> np.ndarray:
        trial = Session(checkpoint, seed)
        trial.publish(weights)
        return play(trial, family, [task] * episodes, np.random.default_rng(EVALUATION_SEED), None).returns().numpy()

    gate = Gate.of(checkpoint, transitions)
    imagined, before = gate.returns(incumbent), true_returns(incumbent)
    for name, weights in _candidates(session, seed, broken):
        true = mean_interval((true_returns(weights) - before).tolist())
        comparison = gate.compare(imagined, gate.returns(weights))
        yield Trial(task.name, seed, name, comparison, true.mean, true.low, true.high)


def _candidates(session: Session, seed: int, broken: bool) -> Iterator[tuple[str, PolicyWeights]]:
    base, config = session.active.weights, session.checkpoint.agent.configuration.finetune
    yield from _stages("fine-tune", session, config, seed)
    yield from _stages("own-data", session, replace(config, updates=config.updates // 2, cross_task=False), seed)
    if broken:
        rate = config.learning_rate
        short = replace(config, updates=min(_BROKEN_UPDATES, config.updates), final_rate=1.0)
        yield from _stages("hot", session, replace(short, learning_rate=10.0 * rate), seed)
        yield from _stages("hasty", session, replace(short, learning_rate=3.0 * rate, critic_only_updates=0), seed)
    generator = torch.Generator().manual_seed(seed)
    for scale in (*_NOISE, 0.1, 0.3) if broken else _NOISE:
        yield f"noise {scale}", PolicyWeights(_with_noise(base, scale, generator), base.context)
    for scale in (0.0, 0.5, *_SCALES, 1.5) if broken else _SCALES:
        yield f"context x {scale}", PolicyWeights(base.state, np.asarray(scale * base.context, np.float32))


def _stages(name: str, session: Session, config: FineTuneConfig, seed: int) -> Iterator[tuple[str, PolicyWeights]]:
    """What a fine-tune passed through, unjudged; where it diverges they end."""
    tuned: FineTune = session.start_finetune(replace(config, judge_steps=0), seed=seed)
    while not tuned.done:
        try:
            tuned.run(config.updates // _STAGES)
        except ValueError:
            return
        if tuned.updates_done > config.updates // _STAGES:
            yield f"{name} @ {tuned.updates_done}", tuned.result()


def _with_noise(weights: PolicyWeights, scale: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        name: value + scale * value.std() * torch.randn(value.shape, generator=generator)
        if name.startswith("policy.") and value.ndim == 2
        else value
        for name, value in weights.state.items()
    }
