"""The shell of a training run: it goes on from its save, keeps its log, and stops at what is not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mier_envs.families import FAMILIES
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.run_folder import RunFolder
from mier_trainer.runs import Run
from mier_trainer.train_shell import train
from tests.unit.tiny_runs import CPU, TINY, TRAINING, epochs


@pytest.fixture(params=TINY)
def run(request: pytest.FixtureRequest) -> Run:
    return TINY[request.param]


@pytest.mark.parametrize("bf16", [False, True])
def test_the_shell_goes_on_from_its_save_and_cuts_its_log(tmp_path: Path, bf16: bool) -> None:
    run = TINY["closed-form"]
    train(run, 5, tmp_path / "whole", CPU, bf16)
    train(replace(run, training=replace(TRAINING, epochs=1)), 5, tmp_path / "killed", CPU, bf16)
    killed = RunFolder.open(tmp_path / "killed", run.name, 5)
    killed.log({"epoch": 2, "nll": 0.0})  # an epoch after the save, and one that the kill cut short
    with killed.curve.open("a") as file:
        file.write('{"epoch": 3, "nll"')
    train(run, 5, tmp_path / "killed", CPU, bf16)
    whole = RunFolder.open(tmp_path / "whole", run.name, 5)
    assert (killed.path / "state.safetensors").read_bytes() == (whole.path / "state.safetensors").read_bytes()
    clock = {"seconds", "environment_steps_per_s", "updates_per_s"}
    rows = [[{k: v for k, v in row.items() if k not in clock} for row in f.rows()] for f in (whole, killed)]
    assert [row["epoch"] for row in rows[1]] == [1, 2, 3]
    # The first part evaluated at what was its end: that changes nothing.
    del rows[1][0]["evaluation"]
    assert rows[0] == rows[1]
    assert len(rows[0][2]["evaluation"]) == 10 + len(FAMILIES[run.family].test_tasks)
    finished = (killed.path / "state.safetensors").stat().st_mtime_ns
    train(run, 5, tmp_path / "killed", CPU, bf16)  # a finished run has nothing to do
    assert (killed.path / "state.safetensors").stat().st_mtime_ns == finished
    assert len(killed.rows()) == 3


def test_half_precision_learns_within_an_epoch_as_single_does(tmp_path: Path) -> None:
    """Autocast's cache of weights, left on, holds those of the epoch's start: nothing would be learned from."""
    longer = replace(TRAINING, epochs=1, model_steps=60, sac_steps_per_model_step=1)

    def nll(rate: float, bf16: bool) -> float:
        training = replace(longer, model_learning_rate=rate)
        train(replace(TINY["closed-form"], training=training), 5, root := tmp_path / f"{rate}-{bf16}", CPU, bf16)
        return float(RunFolder.open(root, "tiny", 5).rows()[0]["nll"])

    learned = {bf16: nll(1e-12, bf16) - nll(1e-3, bf16) for bf16 in (False, True)}
    assert learned[True] != learned[False]  # it was half precision
    assert learned[True] > 0.5 * learned[False] > 0.0


def test_a_run_that_diverges_keeps_its_last_good_save(run: Run, tmp_path: Path) -> None:
    trainer, folder = MetaTrainer.start(run, 5, CPU), RunFolder.open(tmp_path, run.name, 5)
    epochs(trainer, 1)
    trainer.experience.everything.rows.reward.fill_(torch.nan)
    folder.save(trainer.state_dict())
    before = (folder.path / "state.safetensors").read_bytes()
    with pytest.raises(FloatingPointError, match=r"tiny-seed5 diverged in epoch 2: .*nll.* are not finite"):
        train(run, 5, tmp_path, CPU, bf16=False)
    assert (folder.path / "state.safetensors").read_bytes() == before
