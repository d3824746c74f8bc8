"""What figures show, worked out by hand from few rows; the studies' files; tables and pictures from rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mier.config import FineTuneConfig
from mier_envs.families import FAMILIES
from mier_trainer.figures import curve, seconds_to, seed_means, steps_to_reach, summarise
from mier_trainer.figures_shell import arm_table, draw_figures, task_table, with_tables
from mier_trainer.run_folder import append_jsonl
from mier_trainer.runs import RUNS, PearlRun
from mier_trainer.study import Study, studies

ORACLE = {
    "return_mean": 0.0,
    "environment_steps": 1000,
    "curve": [[100, -100.0], [200, -50.0], [300, -20.0], [400, -30.0], [500, 0.0]],
}
STUDY = """
family = "cheetah-vel-ood"
seeds = [0, 1]
episodes = 2
[evaluations.ours]
run = "cheetah-vel-ood"
rounds = 2
finetune = { cross_task = false }
[[arms]]
label = "ours"
evaluation = "ours"
stage = "finetuned"
[relabelling]
ours = "with the training tasks' data"
"""


def _rows(task: str = "2 m/s", target: float | None = 2.0, shift: float = 0.0) -> Iterator[dict[str, Any]]:
    """Two seeds, two episodes each: unadapted -100, context -60 and -40, then -20, then -10; a curve on the way."""
    stages: list[tuple[str, int, int, dict[str, Any], tuple[float, float]]] = [
        ("unadapted", 0, 0, {}, (-100.0, -100.0)),
        ("context_adapted", 1, 400, {"adapt_s": 0.5}, (-60.0, -40.0)),
        ("curve", 1, 400, {"updates": 250, "seconds": 2.0}, (-40.0, -30.0)),
        ("curve", 1, 400, {"updates": 500, "seconds": 4.0}, (-22.0, -24.0)),
        ("finetuned", 1, 400, {"updates": 500, "seconds": 4.0}, (-20.0, -20.0)),
        ("finetuned", 2, 800, {"updates": 500}, (-12.0, -8.0)),
    ]
    for arm, number, steps, more, returns in stages:
        for seed, value in enumerate(returns):
            for episode, noise in enumerate((-1.0, 1.0)):
                shared: dict[str, Any] = {
                    "evaluation": "ours",
                    "task": task,
                    "target": target,
                    "seed": seed,
                    "episode": episode,
                }
                yield (
                    shared
                    | more
                    | {
                        "arm": arm,
                        "round": number,
                        "real_steps": steps,
                        "return": value + noise + shift,
                    }
                )


def test_a_seed_is_one_sample_and_a_task_weighs_as_another() -> None:
    rows = [
        {"seed": 0, "task": "a", "return": 1.0},
        {"seed": 0, "task": "a", "return": 3.0},
        {"seed": 0, "task": "b", "return": 10.0},
        {"seed": 4, "task": "a", "return": 5.0},
    ]
    assert seed_means(rows) == {0: 6.0, 4: 5.0}


def test_the_summary_by_hand() -> None:
    (found,) = summarise(list(_rows()), "ours", {"2 m/s": ORACLE})
    assert (found.unadapted, found.context_adapted, found.oracle) == (-100.0, -50.0, 0.0)
    assert [f.mean for f in found.finetuned] == [-20.0, -10.0]
    assert found.gains == pytest.approx((0.8, 0.9))
    assert found.gain_interval.mean == pytest.approx(0.8)
    # SAC from scratch is at -20 after 300 steps; two trajectories were 400.
    assert (found.scratch_steps, found.real_steps, found.sample_ratio) == (300.0, 400, 0.75)


def test_steps_to_reach_are_read_between_the_points_of_a_curve() -> None:
    points = ORACLE["curve"]
    assert isinstance(points, list)
    assert steps_to_reach(points, -75.0) == 150.0
    assert steps_to_reach(points, -200.0) == 100.0  # nothing is known before the first point
    assert steps_to_reach(points, -25.0) == pytest.approx(200.0 + 100.0 * 25.0 / 30.0)  # the first time
    assert steps_to_reach(points, 1.0) is None


def test_what_sac_never_reaches_is_a_lower_bound() -> None:
    (found,) = summarise(list(_rows(shift=30.0)), "ours", {"2 m/s": ORACLE})
    assert found.scratch_steps is None
    assert found.sample_ratio == 2.5
    assert "| >1,000 | >2 |" in task_table(list(_rows(shift=30.0)), {"2 m/s": ORACLE})


def test_curves_start_at_context_alone_and_tell_seconds() -> None:
    rows: list[Any] = list(_rows())
    assert [(u, p.mean, s) for u, p, s in curve(rows, "ours")] == [
        (0, -50.0, 0.5),
        (250, -35.0, 2.0),
        (500, -23.0, 4.0),
    ]
    # From -100 to -20: 80% of the way is -36, 95% is -24.
    assert seconds_to(rows, "ours", 0.8) == 2.0
    assert seconds_to(rows, "ours", 0.95) == 4.0
    assert seconds_to(rows, "ours", 0.99) is None


def test_a_study_is_read_from_its_file() -> None:
    study = Study.parse("fig9", STUDY)
    assert study.evaluations["ours"].tuned(FineTuneConfig()) == replace(FineTuneConfig(), cross_task=False)
    assert (study.seeds, study.episodes, study.evaluations["ours"].rounds) == ((0, 1), 2, 2)
    for broken, why in (
        (STUDY.replace('run = "cheetah-vel-ood"', 'run = "nobody"'), "unknown run 'nobody'"),
        (STUDY.replace('run = "cheetah-vel-ood"', 'run = "cheetah-negated"'), "expected a run of cheetah-vel-ood"),
        (STUDY.replace('stage = "finetuned"', 'stage = "tuned"'), "expected a stage of"),
        (STUDY.replace('evaluation = "ours"', 'evaluation = "theirs"'), "no evaluation 'theirs'"),
        (STUDY.replace('ours = "with', 'nobody = "with'), "no evaluation 'nobody'"),
        (STUDY.replace('family = "cheetah-vel-ood"', 'family = "cats"'), "unknown family 'cats'"),
    ):
        with pytest.raises(ValueError, match=why):
            Study.parse("fig9", broken)


@pytest.mark.parametrize("name", ["fig3", "fig4"])
def test_the_papers_figures_have_every_arm(name: str) -> None:
    study = studies()[name]
    base = FineTuneConfig()
    assert len(study.seeds) >= 3
    assert {arm.stage for arm in study.arms if arm.evaluation == "ours"} == {
        "unadapted",
        "context_adapted",
        "finetuned",
    }
    own, mier = study.evaluations["own-data"], study.evaluations["mier"]
    # What the ablation is drawn against differs in that alone.
    crossed, _ = (study.evaluations[name] for name in study.relabelling)
    assert own.tuned(base) == replace(crossed.tuned(base), cross_task=False)
    assert own.run == crossed.run == study.evaluations["ours"].run
    assert mier.tuned(base) == base
    assert RUNS[mier.run].configuration.name == "paper"
    assert isinstance(RUNS[study.evaluations["pearl"].run], PearlRun)


def test_figures_and_tables_are_made_of_what_was_recorded(tmp_path: Path) -> None:
    results, page = tmp_path / "results", tmp_path / "results.md"
    for family, figure in (("cheetah-vel-ood", "fig3"), ("cheetah-negated", "fig4")):
        for task in FAMILIES[family].test_tasks:
            append_jsonl(
                results / "oracle.jsonl", ORACLE | {"family": family, "task": task.name, "target": task.target}
            )
            append_jsonl(results / f"{figure}.jsonl", *_rows(task.name, task.target))
    page.write_text("before\n<!-- fig3-tasks -->\nold\n<!-- /fig3-tasks -->\nafter\n")
    written = list(draw_figures(results, page))
    pictures = {path.name for path in written if path.suffix == ".png"}
    assert pictures == {"fig3.png", "fig3-relabelling.png", "fig4.png", "fig4-relabelling.png", "real_steps.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written if path.suffix == ".png")
    text = page.read_text()
    assert text.startswith("before\n<!-- fig3-tasks -->\n| task |")
    assert text.endswith("<!-- /fig3-tasks -->\nafter\n")
    assert "old" not in text
    assert "| 2 m/s | -100.0 | -50.0 | -20.0 [-20.0, -20.0] | 0.0 | 0.80 [0.80, 0.80] | 0.90 |" in text


def test_arms_without_rows_are_left_out_of_the_table() -> None:
    study = studies()["fig3"]
    rows: list[Any] = [r for task in FAMILIES[study.family].test_tasks for r in _rows(task.name, task.target)]
    table = arm_table(study, rows, {task.name: ORACLE for task in FAMILIES[study.family].test_tasks})
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        "ours",
        "ours, context only",
        "no adaptation",
    ]
    assert "| ours | 0.80 | 0.80 | 0.80 | 0.80 | 0.80 | 0.80 [0.80, 0.80] | 2 |" in table


def test_a_table_keeps_its_backslashes() -> None:
    assert with_tables("<!-- a -->x<!-- /a -->", {"a": r"\1 \\"}) == "<!-- a -->\n\\1 \\\\\n<!-- /a -->"
