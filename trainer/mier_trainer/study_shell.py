"""Drives a study: evaluates what its JSONL does not hold yet, one row an evaluation episode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mier.checkpoint import MANIFEST, Checkpoint
from mier_envs.families import FAMILIES, Task
from mier_trainer.baselines.pearl import PearlTrainer
from mier_trainer.bundle import load, trained_checkpoint
from mier_trainer.evaluate import evaluate_task
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import RunFolder, append_jsonl, provenance, read_jsonl
from mier_trainer.runs import RUNS
from mier_trainer.study import Evaluation, Study
from mier_trainer.trainers import start_trainer

_RELABEL_EPISODES = 1200


def run_study(
    study: Study, evaluation: Evaluation, seed: int, root: Path, checkpoints: Path, results: Path, tasks: list[Task]
) -> None:
    """Append to `results` the rows of each task that it does not hold yet for this evaluation and seed.

    Args:
        root: folder of runs.
        checkpoints: folder of bundled checkpoints; the one of this run and seed serves where it is there.

    Raises:
        FileNotFoundError: the run has no finished save; names the command that makes it.
    """
    rows = read_jsonl(results) if results.exists() else []
    done = {row["task"] for row in rows if (row["evaluation"], row["seed"]) == (evaluation.name, seed)}
    todo = [task for task in tasks if task.name not in done]
    if not todo:
        return
    trained, environment_steps = _trained(evaluation, seed, root, checkpoints)
    run = RUNS[evaluation.run]
    key = {
        "figure": study.name,
        "evaluation": evaluation.name,
        "configuration": run.configuration.name,
        "run": run.name,
        "environment_steps": environment_steps,
        **provenance(seed),
    }
    if isinstance(trained, PearlTrainer):
        real_steps = trained.run.training.prior_episodes * trained.spec.horizon_steps
        for found in trained.adapted_episodes(todo, episodes=study.episodes, seed=seed):
            append_jsonl(results, *(key | row for row in _pearl_rows(found, real_steps)))
        return
    config = evaluation.tuned(trained.agent.configuration.finetune)
    title = f"{study.name} {evaluation.name} seed {seed}"
    with progress_bar(title, len(todo) * evaluation.rounds * config.updates, 0) as advance:
        for task in todo:
            note = task.name
            played = evaluate_task(
                trained,
                FAMILIES[study.family],
                task,
                config,
                seed=seed,
                episodes=study.episodes,
                rounds=evaluation.rounds,
                curve_every=evaluation.curve_every,
                on_update=lambda n, note=note: advance(n, note),  # type: ignore[misc]
            )
            append_jsonl(results, *[key | row for row in played])


def _trained(evaluation: Evaluation, seed: int, root: Path, checkpoints: Path) -> tuple[Checkpoint | PearlTrainer, int]:
    """What the finished run made, and the environment steps it took."""
    run = RUNS[evaluation.run]
    if (path := checkpoints / run.name / MANIFEST).exists():
        bundled = load(path.parent)
        if (bundled.manifest["run"], bundled.manifest["seed"]) == (run.name, seed):
            return bundled, bundled.manifest["environment_steps"]
    trainer = start_trainer(run, seed, torch.device("cpu"))
    assert isinstance(trainer, MetaTrainer | PearlTrainer)
    if (saved := RunFolder.open(root, run.name, seed).load()) is not None:
        trainer.load_state_dict(saved)
    if trainer.epochs_done < run.training.epochs:
        raise FileNotFoundError(
            f"evaluation '{evaluation.name}' needs run {run.name} with seed {seed} finished: expected "
            f"{run.training.epochs} epochs, found {trainer.epochs_done}; run: mier-train run {run.name} --seed {seed}"
        )
    made = trainer if isinstance(trainer, PearlTrainer) else trained_checkpoint(trainer, _RELABEL_EPISODES)
    return made, trainer.environment_steps


def _pearl_rows(found: dict[str, Any], real_steps: int) -> Iterator[dict[str, Any]]:
    for number, arm in enumerate(("unadapted", "context_adapted")):
        for episode, value in enumerate(found[arm]):
            yield {
                "task": found["task"],
                "target": found["target"],
                "arm": arm,
                "episode": episode,
                "return": round(value, 3),
                "real_steps": number * real_steps,
                "round": number,
            }
