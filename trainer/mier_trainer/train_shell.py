"""Drives a meta-training run: epochs, saves, evaluations, log and progress."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from mier_envs.families import FAMILIES, Family
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import RunFolder
from mier_trainer.runs import PearlRun, Run
from mier_trainer.trainers import Trainer, start_trainer

_EVALUATION_SEED = 10_000


def train(run: Run | PearlRun, seed: int, root: Path, device: torch.device, bf16: bool) -> Trainer:
    """Train `run` to its last epoch, from its newest save if there is one.

    Raises:
        FloatingPointError: training diverged; the newest save is of before.
    """
    folder = RunFolder.open(root, run.name, seed)
    trainer = start_trainer(run, seed, device)
    folder.describe(seed, device=str(device), precision="bf16" if bf16 else "fp32")
    if (saved := folder.load()) is not None:
        trainer.load_state_dict(saved)
    folder.cut_log("epoch", trainer.epochs_done)
    training = run.training
    total = training.epochs * training.model_steps
    with progress_bar(folder.path.name, total, trainer.epochs_done * training.model_steps) as advance:
        while trainer.epochs_done < training.epochs:
            started, before = time.perf_counter(), trainer.environment_steps
            # Without its cache: that keeps bf16 copies of the weights for as long as the context lasts, and every
            # update of an epoch would be computed at the weights that the epoch began with.
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
                metrics = trainer.epoch(lambda _: advance(1, ""))
            seconds = time.perf_counter() - started
            if broken := [name for name, value in metrics.items() if not math.isfinite(value)]:
                raise FloatingPointError(
                    f"{folder.path.name} diverged in epoch {trainer.epochs_done}: {', '.join(broken)} are not finite; "
                    "the newest save is of before"
                )
            row: dict[str, Any] = metrics | {
                "epoch": trainer.epochs_done,
                "environment_steps": trainer.environment_steps,
                "seconds": round(seconds, 2),
                "environment_steps_per_s": round((trainer.environment_steps - before) / seconds),
                "updates_per_s": round(training.model_steps * training.sac_steps_per_model_step / seconds, 1),
            }
            last = trainer.epochs_done == training.epochs
            if last or trainer.epochs_done % training.evaluate_every_epochs == 0:
                row["evaluation"] = _evaluate(trainer, FAMILIES[run.family])
            folder.log(row)
            if last or trainer.epochs_done % training.save_every_epochs == 0:
                folder.save(trainer.state_dict())
            advance(0, _note(row))
    return trainer


def _evaluate(trainer: Trainer, family: Family) -> list[dict[str, object]]:
    some = trainer.tasks[:: max(1, len(trainer.tasks) // 10)]
    return [
        {"kind": kind, **row}
        for kind, tasks in (("train", some), ("test", list(family.test_tasks)))
        for row in trainer.evaluate(tasks, episodes=2, seed=_EVALUATION_SEED)
    ]


def _note(row: dict[str, Any]) -> str:
    return (
        f"{row['environment_steps_per_s']} env steps/s, {row['updates_per_s']} updates/s, "
        f"return before {row['return_prior']:.0f} after adaptation {row['return_adapted']:.0f}"
    )
