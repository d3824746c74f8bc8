"""The oracle: resumed bit for bit, one of a negated family is one of all, rows written once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mier.serialization import pack
from mier_envs.families import FAMILIES
from mier_trainer import oracle, oracle_shell
from mier_trainer.oracle import OracleTrainer, oracle_returns
from mier_trainer.run_folder import RunFolder, read_jsonl

SPEED, NEGATED = FAMILIES["cheetah-vel-ood"], FAMILIES["cheetah-negated"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of one episode and ten updates; three of them are a whole run."""
    monkeypatch.setattr(oracle, "_EPISODES_PER_EPOCH", 1)
    monkeypatch.setattr(oracle, "_STEPS_PER_UPDATE", 20)
    monkeypatch.setattr(oracle, "_BATCH", 16)
    monkeypatch.setattr(oracle, "ENVIRONMENT_STEPS", 600)
    monkeypatch.setattr(oracle_shell, "ENVIRONMENT_STEPS", 600)
    monkeypatch.setattr(oracle_shell, "_FINAL_EPISODES", 2)
    monkeypatch.setattr(oracle_shell, "_SAVE_EVERY_EPOCHS", 1)


def ignore(_: int) -> None:
    """Progress is for people."""


def test_a_killed_oracle_ends_as_if_it_was_never_stopped(tmp_path: Path) -> None:
    task, folder = SPEED.test_tasks[2], RunFolder.open(tmp_path, "oracle", 1)
    whole = OracleTrainer.start(SPEED, task, 1)
    rows = [whole.epoch(ignore) for _ in range(3)]
    assert whole.done
    assert whole.environment_steps == 600
    killed = OracleTrainer.start(SPEED, task, 1)
    for done in (1, 2):
        assert killed.epoch(ignore) == rows[done - 1]
        folder.save(killed.state_dict())
        killed.epoch(ignore)  # work that the kill loses
        killed = OracleTrainer.start(SPEED, task, 1)
        killed.load_state_dict(folder.load() or {})
        assert killed.epochs_done == done
    assert killed.epoch(ignore) == rows[2]
    assert pack(killed.state_dict()) == pack(whole.state_dict())


def test_the_oracle_of_one_sign_mask_is_the_oracle_of_all() -> None:
    trainer = OracleTrainer.start(NEGATED, NEGATED.test_tasks[3], 1)
    trainer.epoch(ignore)
    returns = [oracle_returns(trainer, task, episodes=2, seed=5) for task in NEGATED.test_tasks]
    assert all(found == returns[0] for found in returns)
    assert len(set(returns[0])) == 2
    # Without carrying it over, the same policy does something else on another task.
    trainer.task = NEGATED.test_tasks[7]
    assert oracle_returns(trainer, NEGATED.test_tasks[3], episodes=2, seed=5) != returns[0]


def test_a_speed_oracle_is_of_its_own_speed() -> None:
    trainer = OracleTrainer.start(SPEED, SPEED.test_tasks[4], 1)
    trainer.epoch(ignore)
    fast, slow = (oracle_returns(trainer, SPEED.test_tasks[i], episodes=1, seed=5)[0] for i in (4, 0))
    assert fast - slow == pytest.approx(-200 * 2.0, abs=60.0)  # hardly moving yet: the target makes the difference


@pytest.mark.parametrize(("family", "rows"), [("cheetah-vel-ood", 1), ("cheetah-negated", 10)])
def test_results_are_written_once(tmp_path: Path, family: str, rows: int) -> None:
    results, task = tmp_path / "results" / "oracle.jsonl", FAMILIES[family].test_tasks[1]
    for _ in range(2):
        oracle_shell.train_oracle(FAMILIES[family], task, 1, tmp_path, results)
    written = read_jsonl(results)
    assert len(written) == rows
    covered = [task.name] if rows == 1 else [each.name for each in FAMILIES[family].test_tasks]
    assert [row["task"] for row in written] == covered
    for row in written:
        assert (row["family"], row["trained_on"], row["seed"]) == (family, task.name, 1)
        assert (row["environment_steps"], row["episodes"]) == (600, 2)
        assert np.isfinite(row["return_mean"])
        assert row["versions"]["mujoco"]
        assert [point[0] for point in row["curve"]] == [600]
    oracle_shell.train_oracle(FAMILIES[family], task, 2, tmp_path, results)
    assert len(read_jsonl(results)) == 2 * rows  # another seed is another oracle
