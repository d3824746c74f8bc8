"""Thresholds from candidates of known worth, and a checkpoint folder that gets its gate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mier.config import FineTuneConfig, ModelConfig
from mier.gate import Comparison, Verdict
from mier_envs.families import FAMILIES, Family
from mier_trainer import bundle as bundling
from mier_trainer.bundle import bundle, load
from mier_trainer.calibrate import gate_thresholds
from mier_trainer.calibrate_shell import CALIBRATION, calibrate
from mier_trainer.change_study import Noticing
from mier_trainer.change_study_shell import run_change_study
from mier_trainer.gate_study import Rates
from mier_trainer.gate_study_shell import run_gate_study
from mier_trainer.gate_trials import Trial
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.ood_study import Detection
from mier_trainer.ood_study_shell import run_ood_study
from mier_trainer.run_folder import RunFolder, read_jsonl
from mier_trainer.train_shell import train
from tests.unit.tiny_runs import CPU, TINY


def trial(low: float, high: float, true: float) -> Trial:
    return Trial("a task", 0, "a candidate", Comparison(0.0, 0.0, low, high, 8, 20), true, true - 1.0, true + 1.0)


def test_thresholds_by_hand() -> None:
    """Broken on purpose: with the quantiles of better and worse exchanged, everything would pass."""
    worse = [trial(float(i), float(i) + 1.0, -3.0) for i in range(-15, 5)]  # lower bounds -15 to 4
    better = [trial(float(i) - 1.0, float(i), 3.0) for i in range(-2, 18)]  # upper bounds -2 to 17
    found = gate_thresholds([*worse, *better, trial(9.0, 9.0, 0.0)])
    assert (found.promote_above, found.reject_below, found.candidates) == (4.0, -2.0, 41)
    far_apart = gate_thresholds([trial(-9.0, -8.0, -1.0), trial(8.0, 9.0, 1.0)])
    assert (far_apart.promote_above, far_apart.reject_below) == (0.0, 0.0)


def test_thresholds_need_candidates_of_both_kinds() -> None:
    with pytest.raises(ValueError, match="came 1 and 0; calibrate on more tasks"):
        gate_thresholds([trial(0.0, 1.0, -2.0)])


def test_rates_by_hand() -> None:
    """Only what differs beyond its own interval is better or worse."""
    rows = [
        {"verdict": verdict.value, "true_low": true - 1.0, "true_high": true + 1.0}
        for verdict, true in (
            (Verdict.PROMOTE, 5.0),
            (Verdict.PROMOTE, 0.5),
            (Verdict.PROMOTE, -5.0),
            (Verdict.PROMOTE, 3.0),
            (Verdict.REJECT, 2.0),
            (Verdict.REJECT, -2.0),
            (Verdict.INSUFFICIENT_DATA, 2.0),
        )
    ]
    found = Rates.of(rows)
    assert (found.candidates, found.promoted, found.rejected, found.undecided) == (7, 4, 2, 1)
    assert (found.promoted_and_worse, found.better_and_rejected) == (0.25, 0.25)
    assert (found.better_and_promoted, found.worse_and_rejected) == (0.5, 0.5)


@pytest.fixture
def family() -> Family:
    """One task to calibrate on and one to test on."""
    whole = FAMILIES["cheetah-vel-ood"]
    return replace(whole, calibration_tasks=whole.calibration_tasks[:1], test_tasks=whole.test_tasks[:1])


def test_a_bundle_gets_its_gate_and_is_studied(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundling, "_RETURNS_EPISODES", 1)
    tuned = FineTuneConfig(updates=10, critic_only_updates=0, batch_size=16, learning_rate=0.01)
    run = replace(TINY["joint"], configuration=replace(TINY["joint"].configuration, finetune=tuned))
    world = ModelConfig(context_dim=0, hidden=(16, 16), trained_prior=False)
    run = replace(
        run,
        configuration=replace(run.configuration, dynamics=world),
        training=replace(run.training, epochs=1, dynamics_steps=5),
    )
    trainer = train(run, 5, tmp_path / "runs", CPU, bf16=False)
    assert isinstance(trainer, MetaTrainer)
    path = bundle(trainer, RunFolder.open(tmp_path / "runs", "tiny", 5), tmp_path, episodes=30)
    ungated = load(path)
    with pytest.raises(ValueError, match="'tiny' has no gate; mier-train calibrate"):
        run_gate_study(ungated, family, tmp_path / "gate.jsonl", list(family.test_tasks), (0,), 2)
    found = calibrate(path, family, parts=("gate", "ood"), tasks=6, steps=20, seed=0, episodes=2, inside=4)
    gated = load(path)
    assert gated.calibration == found
    assert gated.hash != ungated.hash
    assert gated.agent.policy.state_dict().keys() == ungated.agent.policy.state_dict().keys()
    trials = read_jsonl(path / CALIBRATION)
    assert {row["task"] for row in trials} == {"0.3 m/s"}
    assert found.gate is not None
    assert len(trials) == found.gate.candidates
    results = tmp_path / "gate.jsonl"
    run_gate_study(gated, family, results, list(family.test_tasks), (0,), 2)
    rows = read_jsonl(results)
    assert {"hot @ 10", "noise 0.3", "context x 0.0"} <= {row["candidate"] for row in rows}
    run_gate_study(gated, family, results, list(family.test_tasks), (0,), 2)
    assert len(read_jsonl(results)) == len(rows)
    assert json.loads((path / "manifest.json").read_text())["calibration"]["gate"]["candidates"] < len(rows)
    again = calibrate(path, family, parts=("ood",), tasks=6, steps=20, seed=9, episodes=2, inside=6)
    assert again.gate == found.gate
    assert again.ood is not None
    assert found.ood is not None
    assert (len(found.ood.distances), len(again.ood.distances)) == (4, 6)
    results = tmp_path / "ood.jsonl"
    for _ in range(2):  # the second finds everything done
        run_ood_study(load(path), replace(family, ood_tasks=family.ood_tasks[:2]), results, 3, 2)
    shown = read_jsonl(results)
    assert [row["outside"] for row in shown] == [False] * 3 + [True] * 4
    assert {row["task"] for row in shown if row["outside"]} == {"1.1 m/s", "1.2 m/s"}
    assert all(0.0 <= row["percentile"] < 100.0 for row in shown)
    results = tmp_path / "change.jsonl"
    for _ in range(2):
        run_change_study(load(path), family, results, 2, 1, 0)
    episodes = read_jsonl(results)
    assert [(row["seed"] - 700, row["episode"], row["switch"]) for row in episodes] == [
        (0, 0, 200), (0, 1, 100), (1, 0, 200), (1, 1, 100)
    ]  # fmt: skip
    assert all(math.isfinite(row["return"]) for row in episodes)


def test_noticing_by_hand() -> None:
    """Broken on purpose: with an alarm before the switch taken for noticing it, the delay of the third is negative."""
    rows: list[dict[str, Any]] = [
        {"switch": 200, "alarms": [50]},
        {"switch": 100, "alarms": [130, 180]},
        {"switch": 100, "alarms": [40, 150]},
        {"switch": 100, "alarms": []},
        {"switch": 0, "alarms": []},
    ]
    found = Noticing.of(rows, 200)
    assert (found.changes, found.missed, found.false_alarms) == (3, 1 / 3, 3 / 5)
    assert (found.median_delay_steps, found.longest_delay_steps) == (40.0, 50.0)


def test_detection_by_hand() -> None:
    """Broken on purpose: with recall over all tasks, or with a threshold that excludes its own value, it differs."""
    seen = [(False, 10.0), (False, 95.0), (False, 94.9), (False, 0.0), (True, 95.0), (True, 99.0), (True, 20.0)]
    found = Detection.of([{"outside": outside, "percentile": percentile} for outside, percentile in seen])
    assert (found.inside, found.outside) == (4, 3)
    assert (found.precision, found.recall, found.false_alarms) == (2 / 3, 2 / 3, 0.25)
    assert Detection.of([]) == Detection(0, 0, 0.0, 0.0, 0.0)
