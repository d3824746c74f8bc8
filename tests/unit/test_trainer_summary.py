"""Arms, gains and intervals, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mier.config import FineTuneConfig
from mier.intervals import mean_interval
from mier_trainer.evaluate_shell import arm_config, summary


def test_arms_differ_from_ours_by_their_name_alone() -> None:
    base = FineTuneConfig(updates=9)
    assert arm_config(base, "ours") == base
    assert arm_config(base, "own-data") == replace(base, cross_task=False)
    assert arm_config(base, "plain") == replace(base, warm_start=False, critic_only_updates=0)


def test_the_summary_by_hand() -> None:
    returns = {
        "unadapted": [[-100.0, -100.0], [-100.0, -100.0]],
        "context_adapted": [[-60.0, -40.0], [-50.0, -50.0]],
        "finetuned": [[-20.0, -20.0], [-30.0, -10.0]],
    }
    rows = [
        {"task": "t", "arm": arm, "seed": seed, "episode": episode, "return": value, "round": int(arm != "unadapted")}
        for arm, seeds in returns.items()
        for seed, values in enumerate(seeds)
        for episode, value in enumerate(values)
    ]
    (found,) = summary(rows, {"t": -10.0})
    assert (found["unadapted"], found["context_adapted"], found["finetuned"]) == (-100.0, -50.0, -20.0)
    assert found["gain_context_adapted"] == pytest.approx(50 / 90)
    assert found["gain_finetuned"] == pytest.approx(80 / 90)
    # A seed is a sample: differences 30 and 30.
    assert found["paired"]["context_adapted"] == (30.0, 30.0, 30.0)
    assert (found["seeds"], found["episodes"]) == (2, 4)


def test_intervals_are_students() -> None:
    # 4.303 standard errors of 1 / sqrt 3.
    assert list(mean_interval([1.0, 2.0, 3.0])) == pytest.approx([2.0, 2.0 - 2.4843, 2.0 + 2.4843], abs=1e-3)
    assert mean_interval([5.0]) == (5.0, -float("inf"), float("inf"))
    wide, narrow = mean_interval([0.0, 1.0] * 5), mean_interval([0.0, 1.0] * 50)
    assert narrow.high - narrow.low < wide.high - wide.low
