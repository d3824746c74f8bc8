"""Drives oracle runs: saves, learning curves, and the rows that everything else reads."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from mier_envs.families import Family, Task
from mier_trainer.oracle import ENVIRONMENT_STEPS, OracleTrainer, oracle_returns
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import RunFolder, append_jsonl, read_jsonl

_SAVE_EVERY_EPOCHS = 10
_CURVE_EVERY_EPOCHS = 5
_CURVE_EPISODES = 5
_FINAL_EPISODES = 20
_EVALUATION_SEED = 30_000


def train_oracle(family: Family, task: Task, seed: int, root: Path, results: Path) -> None:
    """Train SAC on one task (or go on), then append to `results` a row per covered test task that is not there yet."""
    folder = RunFolder.open(root, f"oracle-{family.name}-{_slug(task)}", seed)
    described = folder.describe(seed)
    trainer = OracleTrainer.start(family, task, seed)
    if (saved := folder.load()) is not None:
        trainer.load_state_dict(saved)
    folder.cut_log("epoch", trainer.epochs_done)
    epochs = ENVIRONMENT_STEPS // (trainer.updates_per_epoch * 2)
    with progress_bar(folder.path.name, epochs * trainer.updates_per_epoch, trainer.environment_steps // 2) as advance:
        while not trainer.done:
            started = time.perf_counter()
            row: dict[str, object] = dict(trainer.epoch(lambda _: advance(1, "")))
            row |= {"epoch": trainer.epochs_done, "environment_steps": trainer.environment_steps}
            row["seconds"] = round(time.perf_counter() - started, 2)
            if trainer.epochs_done % _CURVE_EVERY_EPOCHS == 0 or trainer.done:
                row["returns"] = oracle_returns(trainer, task, episodes=_CURVE_EPISODES, seed=_EVALUATION_SEED)
            folder.log(row)
            if trainer.epochs_done % _SAVE_EVERY_EPOCHS == 0 or trainer.done:
                folder.save(trainer.state_dict())
            advance(0, f"return {row['return_exploring']:.0f}")
    known = read_jsonl(results) if results.exists() else []
    there = {(row["family"], row["task"], row["trained_on"], row["seed"]) for row in known}
    for covered in _covered(family, task):
        if (family.name, covered.name, task.name, seed) in there:
            continue
        returns = oracle_returns(trainer, covered, episodes=_FINAL_EPISODES, seed=_EVALUATION_SEED)
        append_jsonl(
            results,
            {
                "family": family.name,
                "task": covered.name,
                "target": covered.target,
                "trained_on": task.name,
                "environment_steps": trainer.environment_steps,
                "episodes": len(returns),
                "return_mean": round(float(np.mean(returns)), 3),
                "return_std": round(float(np.std(returns)), 3),
                "curve": [
                    [r["environment_steps"], round(float(np.mean(r["returns"])), 2)]
                    for r in folder.rows()
                    if "returns" in r
                ],
                **described,
            },
        )


def _covered(family: Family, task: Task) -> list[Task]:
    return list(family.test_tasks) if "mask" in task.arguments else [task]


def _slug(task: Task) -> str:
    return task.name.replace(" ", "-").replace("/", "").replace("+", "-")
