"""What a figure needs is evaluated once, from the run or from the checkpoint that was bundled from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mier.config import FineTuneConfig
from mier_envs.families import FAMILIES
from mier_trainer.bundle import bundle
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.run_folder import RunFolder, read_jsonl
from mier_trainer.runs import RUNS, Run
from mier_trainer.study import Arm, Evaluation, Study
from mier_trainer.study_shell import run_study
from mier_trainer.train_shell import train
from tests.unit.tiny_runs import CPU, TINY, TRAINING

_TASKS = list(FAMILIES["cheetah-vel-ood"].test_tasks[:2])


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    tuned = FineTuneConfig(updates=3, model_steps=2, critic_only_updates=0, relabel_transitions=64)
    run = replace(TINY["joint"], configuration=replace(TINY["joint"].configuration, finetune=tuned))
    monkeypatch.setitem(RUNS, "tiny", run)
    ours = Evaluation("ours", "tiny", rounds=2, curve_every=3)
    return Study("tiny", run.family, (5,), 1, {"ours": ours}, (Arm("ours", "ours", "finetuned"),), {})


def _evaluate(study: Study, into: Path, *, runs: Path, checkpoints: Path) -> list[dict[str, object]]:
    run_study(study, study.evaluations["ours"], 5, runs, checkpoints, into, _TASKS)
    return [{k: v for k, v in row.items() if k not in ("seconds", "adapt_s")} for row in read_jsonl(into)]


def test_a_bundled_checkpoint_serves_as_the_run_does(study: Study, tmp_path: Path) -> None:
    run = RUNS["tiny"]
    assert isinstance(run, Run)
    runs, bundled, nothing = tmp_path / "runs", tmp_path / "checkpoints", tmp_path / "nothing"
    trainer = train(run, 5, runs, CPU, bf16=False)
    assert isinstance(trainer, MetaTrainer)
    bundle(trainer, RunFolder.open(runs, "tiny", 5), bundled, episodes=1200)
    of_run = _evaluate(study, tmp_path / "run.jsonl", runs=runs, checkpoints=nothing)
    assert {(row["task"], row["arm"], row["round"]) for row in of_run} == {
        (task.name, *arm)
        for task in _TASKS
        for arm in (("unadapted", 0), ("context_adapted", 1), ("curve", 1), ("finetuned", 1), ("finetuned", 2))
    }
    assert {row["environment_steps"] for row in of_run} == {trainer.environment_steps}
    assert _evaluate(study, tmp_path / "bundled.jsonl", runs=nothing, checkpoints=bundled) == of_run
    assert (
        _evaluate(study, tmp_path / "run.jsonl", runs=nothing, checkpoints=nothing) == of_run
    )  # nothing is left to do


def test_another_seeds_checkpoint_does_not_serve(study: Study, tmp_path: Path) -> None:
    run = RUNS["tiny"]
    assert isinstance(run, Run)
    runs, bundled = tmp_path / "runs", tmp_path / "checkpoints"
    trainer = train(run, 4, runs, CPU, bf16=False)
    assert isinstance(trainer, MetaTrainer)
    bundle(trainer, RunFolder.open(runs, "tiny", 4), bundled, episodes=1200)
    train(replace(run, training=replace(TRAINING, epochs=1)), 5, runs, CPU, bf16=False)
    with pytest.raises(FileNotFoundError, match="expected 3 epochs, found 1; run: mier-train run tiny --seed 5"):
        _evaluate(study, tmp_path / "rows.jsonl", runs=runs, checkpoints=bundled)
