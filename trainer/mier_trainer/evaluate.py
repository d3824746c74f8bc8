"""What a robot would see: two trajectories of a test task, adapt, fine-tune, act again (by `mier.session`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from mier.adaptation import Adaptation
from mier.checkpoint import Checkpoint
from mier.config import FineTuneConfig
from mier.finetune import FineTune
from mier.session import Session
from mier_envs.families import Family, Task
from mier_trainer.rollout import Episodes, collect

EVALUATION_SEED = 40_000
"""Of the initial states of evaluation episodes, shared by all arms of a study."""
_CHUNK_UPDATES = 250
_CURVE_EPISODES = 3
_TRAJECTORIES = 2
"""Real trajectories a round; the context is adapted after each, so that the second sees more than the first."""


def evaluate_task(
    checkpoint: Checkpoint,
    family: Family,
    task: Task,
    config: FineTuneConfig,
    *,
    seed: int,
    episodes: int,
    rounds: int = 1,
    curve_every: int = 0,
    on_update: Callable[[int], None] = lambda updates: None,
) -> Iterator[dict[str, Any]]:
    """One row per evaluation episode of each arm, on initial states shared by all arms (so differences are paired).

    Args:
        seed: of the exploration, the initial states of the real trajectories and the fine-tune.
        rounds: each further round acts with the newest policy for two more trajectories, adapts and fine-tunes again.
        curve_every: also act after every so many updates of the first round, as arm 'curve'; 0 for not at all. Its
            seconds are those of adapting and fine-tuning so far, without those of looking.
    """
    session = Session(checkpoint, seed)
    rng = np.random.default_rng([seed, 1])
    real_steps = 0
    facts: dict[str, Any] = {"task": task.name, "target": task.target, "seed": seed}

    def rows(arm: str, **extra: Any) -> Iterator[dict[str, Any]]:
        played = play(session, family, [task] * episodes, np.random.default_rng(EVALUATION_SEED), None)
        for i, value in enumerate(played.returns().tolist()):
            yield facts | {"arm": arm, "episode": i, "return": round(value, 3), "real_steps": real_steps} | extra

    def curve(tuned: FineTune, seconds: float) -> Iterator[dict[str, Any]]:
        trial = Session(checkpoint, seed)
        trial.publish(tuned.result())
        start = np.random.default_rng(EVALUATION_SEED)
        played = play(trial, family, [task] * _CURVE_EPISODES, start, None)
        at: dict[str, Any] = {"arm": "curve", "round": 1, "updates": tuned.updates_done, "seconds": seconds}
        for i, value in enumerate(played.returns().tolist()):
            yield facts | at | {"episode": i, "return": round(value, 3), "real_steps": real_steps}

    yield from rows("unadapted", round=0)
    for number in range(1, rounds + 1):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        found, adapt_s = two_trajectories(session, family, task, rng, generator)
        real_steps += _TRAJECTORIES * checkpoint.spec.horizon_steps
        found_out: dict[str, Any] = {
            "nll_before": round(found.nll_before, 4),
            "nll_after": round(found.nll_after, 4),
            "ood_score": round(found.ood_score, 3),
            "adapt_s": round(adapt_s, 4),
        }
        if number == 1:
            yield from rows("context_adapted", round=number, **found_out)
        watch = time.perf_counter()
        tuned = session.start_finetune(config, seed=seed)
        seconds = adapt_s + time.perf_counter() - watch
        found_out["nll_model"] = round(tuned.heldout_nll, 4)
        while not tuned.done:
            before, watch = tuned.updates_done, time.perf_counter()
            metrics = tuned.run(_CHUNK_UPDATES)
            seconds += time.perf_counter() - watch
            on_update(metrics.updates_done - before)
            if number == 1 and curve_every and metrics.updates_done % curve_every == 0:
                yield from curve(tuned, round(seconds, 2))
        verdict = session.propose(tuned.result())
        found_out["gate"] = verdict.value if verdict else "ungated"
        yield from rows("finetuned", round=number, updates=config.updates, seconds=round(seconds, 2), **found_out)


def context_returns(
    checkpoint: Checkpoint, family: Family, tasks: list[Task], *, seed: int, episodes: int
) -> list[dict[str, Any]]:
    """Each task's mean deterministic return before and after one round's context adaptations; no fine-tuning."""
    rows = []
    for task in tasks:
        session = Session(checkpoint, seed)
        returns = []
        for arm in ("unadapted", "context_adapted"):
            if arm == "context_adapted":
                generator = torch.Generator().manual_seed(seed)
                found, _ = two_trajectories(session, family, task, np.random.default_rng([seed, 1]), generator)
            played = play(session, family, [task] * episodes, np.random.default_rng(EVALUATION_SEED), None)
            returns.append(played.returns().mean().item())
        rows.append(
            {
                "task": task.name,
                "unadapted": returns[0],
                "context_adapted": returns[1],
                "nll_before": found.nll_before,
                "nll_after": found.nll_after,
                "ood_score": found.ood_score,
            }
        )
    return rows


def two_trajectories(
    session: Session, family: Family, task: Task, rng: np.random.Generator, generator: torch.Generator
) -> tuple[Adaptation, float]:
    """Acts, observes and adapts after each of two trajectories; the last adaptation, and the seconds it took."""
    for _ in range(_TRAJECTORIES):
        session.observe(play(session, family, [task], rng, generator).flat())
        started = time.perf_counter()
        found = session.adapt()
        seconds = time.perf_counter() - started
    return found, seconds


def play(
    session: Session, family: Family, tasks: list[Task], rng: np.random.Generator, generator: torch.Generator | None
) -> Episodes:
    """An episode of each task by the active version; deterministic without a generator."""
    weights = session.active.weights
    contexts = torch.from_numpy(weights.context).expand(len(tasks), -1)
    policy = weights.load_policy(session.checkpoint.agent)
    return collect(family, tasks, policy, contexts, rng=rng, generator=generator)
