"""Reads recorded rows, writes the study's pictures and the tables of its page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mier.intervals import Interval, mean_interval
from mier_envs.families import FAMILIES
from mier_trainer.figure_plots import plot_bars, plot_real_steps, plot_relabelling, plot_targets
from mier_trainer.figures import Row, arm_rows, normalised_gain, seconds_to, seed_means, summarise
from mier_trainer.run_folder import read_jsonl
from mier_trainer.study import Study, studies

_OURS = "ours"
_SHARE = 0.9


def draw_figures(results: Path, page: Path) -> Iterator[Path]:
    """Write what the recorded rows allow; yields each file written."""
    panels: dict[str, tuple[list[Row], list[Row]]] = {}
    for study in sorted(studies().values(), key=lambda s: s.name):
        recorded = results / f"{study.name}.jsonl"
        if not recorded.exists():
            continue
        rows: list[Row] = list(read_jsonl(recorded))
        oracle = _oracle(results / "oracle.jsonl", study.family)
        main, relabelling = results / f"{study.name}.png", results / f"{study.name}-relabelling.png"
        by_target = FAMILIES[study.family].test_tasks[0].target is not None
        (plot_targets if by_target else plot_bars)(study, rows, oracle, main)
        yield main
        plot_relabelling(study, rows, relabelling)
        yield relabelling
        panels |= _panels(study, rows, oracle)
        if page.exists() and any(row["evaluation"] == _OURS for row in rows):
            # What every gain is against is ours' unadapted policy.
            tables = {f"{study.name}-tasks": task_table(rows, oracle)}
            tables[f"{study.name}-arms"] = arm_table(study, rows, oracle)
            page.write_text(with_tables(page.read_text(), tables))
    if panels:
        path = results / "real_steps.png"
        plot_real_steps(panels, _OURS, path)
        yield path
    if page.exists():
        yield page


def with_tables(text: str, tables: dict[str, str]) -> str:
    """`text` with what stands between <!-- NAME --> and <!-- /NAME --> replaced."""
    for name, table in tables.items():
        block = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
        pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
        # Not a template: backslashes in a table mean themselves.
        text = re.sub(pattern, block.replace("\\", r"\\"), text, flags=re.DOTALL)
    return text


def task_table(rows: list[Row], oracle: dict[str, Row]) -> str:
    """Markdown: ours on each test task, round by round."""
    found = summarise(rows, _OURS, oracle)
    rounds = max(len(s.gains) for s in found)
    lines = [
        "| task | unadapted | context only | fine-tuned (95% over seeds) | oracle | gain after 2 trajectories (95%) "
        + "".join(f"| after {2 * n} " for n in range(2, rounds + 1))
        + "| SAC steps for the same | sample ratio | s to 90% |",
        "|---" * (9 + rounds - 1) + "|",
    ]
    for s in found:
        mine = [row for row in rows if row["task"] == s.task]
        more = "" if s.scratch_steps is not None else ">"
        steps = s.scratch_limit if s.scratch_steps is None else s.scratch_steps
        seconds = seconds_to(mine, _OURS, _SHARE)
        lines.append(
            f"| {s.task} | {s.unadapted:.1f} | {s.context_adapted:.1f} | {_interval(s.finetuned[0], 1)} "
            f"| {s.oracle:.1f} | {_interval(s.gain_interval, 2)} "
            + "".join(f"| {gain:.2f} " for gain in s.gains[1:])
            + f"| {more}{steps:,.0f} | {more}{s.sample_ratio:.0f} | {'-' if seconds is None else f'{seconds:.1f}'} |"
        )
    return "\n".join(lines)


def arm_table(study: Study, rows: list[Row], oracle: dict[str, Row]) -> str:
    """Markdown: every arm by its normalised gain on each task, and on their mean."""
    tasks = [task.name for task in FAMILIES[study.family].test_tasks]
    lines = [
        "| arm | " + " | ".join(tasks) + " | mean gain (95% over seeds) | seeds |",
        "|---" * (len(tasks) + 3) + "|",
    ]
    ours = arm_rows(rows, _OURS, "unadapted")
    before = {task: float(np.mean(list(seed_means([r for r in ours if r["task"] == task]).values()))) for task in tasks}
    for arm in study.arms:
        mine = arm_rows(rows, arm.evaluation, arm.stage)
        gains: dict[int, list[float]] = {}
        cells = []
        for task in tasks:
            means = seed_means([row for row in mine if row["task"] == task])
            of_task = [normalised_gain(v, before[task], oracle[task]["return_mean"]) for v in means.values()]
            cells.append(f"{np.mean(of_task):.2f}" if of_task else "-")
            for seed, gain in zip(means, of_task, strict=True):
                gains.setdefault(seed, []).append(gain)
        if gains:
            complete = [float(np.mean(g)) for g in gains.values() if len(g) == len(tasks)]
            whole = _interval(mean_interval(complete), 2) if complete else "-"
            lines.append(f"| {arm.label} | " + " | ".join(cells) + f" | {whole} | {len(gains)} |")
    return "\n".join(lines)


def _interval(value: Interval, digits: int) -> str:
    known = np.isfinite(value.low)
    return f"{value.mean:.{digits}f}" + (f" [{value.low:.{digits}f}, {value.high:.{digits}f}]" if known else "")


def _oracle(path: Path, family: str) -> dict[str, Row]:
    return {row["task"]: row for row in read_jsonl(path) if row["family"] == family}


def _panels(study: Study, rows: list[Row], oracle: dict[str, Row]) -> dict[str, tuple[list[Row], list[Row]]]:
    """Each target speed out of the training range by itself; negated joints as one mean."""
    mine = [row for row in rows if row["evaluation"] == _OURS]
    if not mine:
        return {}
    if all(row["target"] is None for row in mine):
        return {f"{study.family}, mean of {len(oracle)} tasks": (mine, list(oracle.values()))}
    return {
        task: ([row for row in mine if row["task"] == task], [reference])
        for task, reference in sorted(oracle.items())
        if reference["target"] > 1.0 and any(row["task"] == task for row in mine)
    }
