"""The figures of the study as pictures, from recorded rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from mier.intervals import Interval, mean_interval
from mier_trainer.figures import Row, arm_rows, curve, seed_means, summarise
from mier_trainer.study import Study

_COLORS = ("tab:blue", "tab:cyan", "tab:green", "tab:orange", "tab:red", "tab:gray", "tab:purple")


def plot_targets(study: Study, rows: list[Row], oracle: Mapping[str, Row], path: Path) -> None:
    """Return against target speed, a line an arm (the paper's Figure 3)."""
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    axes.axvspan(0.0, 1.0, color="tab:gray", alpha=0.12, label="speeds of training")
    for color, arm in zip(_COLORS, study.arms, strict=False):
        mine = arm_rows(rows, arm.evaluation, arm.stage)
        targets = sorted({row["target"] for row in mine})
        points = [_over_seeds([r for r in mine if r["target"] == t]) for t in targets]
        if points:
            _line(axes, targets, points, _label(arm.label, mine), color)
    known = sorted((row["target"], row["return_mean"]) for row in oracle.values())
    axes.plot(*zip(*known, strict=True), "k--", lw=1, label="oracle: SAC on that one task")
    axes.set(xlabel="target speed (m/s)", ylabel="episode return", title=_title(study, rows))
    axes.legend(fontsize=7)
    _finish(figure, axes, path)


def plot_bars(study: Study, rows: list[Row], oracle: Mapping[str, Row], path: Path) -> None:
    """Mean return over all test tasks, a bar an arm, a dot a task (the paper's Figure 4, left)."""
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    labels: list[str] = []
    for color, arm in zip(_COLORS, study.arms, strict=False):
        mine = arm_rows(rows, arm.evaluation, arm.stage)
        if not mine:
            continue
        point, at = _over_seeds(mine), len(labels)
        axes.bar(at, point.mean, color=color, alpha=0.75, yerr=_error([point]), capsize=4)
        tasks = [_over_seeds([r for r in mine if r["task"] == t]).mean for t in dict.fromkeys(r["task"] for r in mine)]
        axes.plot(at + np.linspace(-0.25, 0.25, len(tasks)), tasks, "k.", ms=3)
        labels.append(_label(arm.label, mine))
    axes.axhline(float(np.mean([row["return_mean"] for row in oracle.values()])), color="k", ls="--", lw=1)
    axes.set_xticks(range(len(labels)), labels, rotation=20, ha="right", fontsize=8)
    axes.set(ylabel="episode return, mean over test tasks (dots: tasks; dashed: oracle)", title=_title(study, rows))
    axes.yaxis.label.set_fontsize(8)
    _finish(figure, axes, path)


def plot_relabelling(study: Study, rows: list[Row], path: Path) -> None:
    """Return over fine-tune updates (the paper's Figure 4, right)."""
    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    for color, (name, label) in zip(_COLORS, study.relabelling.items(), strict=False):
        points = curve(rows, name)
        if points:
            updates = [float(u) for u, _, _ in points]
            mine = [row for row in rows if row["evaluation"] == name]
            _line(axes, updates, [p for _, p, _ in points], _label(label, mine), color)
    axes.set(xlabel="updates on relabelled transitions", ylabel="episode return, mean over test tasks")
    axes.set_title(_title(study, rows, curve=True), fontsize=9)
    if axes.lines:
        axes.legend(fontsize=8)
    _finish(figure, axes, path)


def plot_real_steps(panels: Mapping[str, tuple[list[Row], list[Row]]], evaluation: str, path: Path) -> None:
    """Return over real environment steps: ours round by round, and SAC from scratch.

    Args:
        panels: title -> (rows of the study, oracle rows), each of the tasks that a panel averages over.
    """
    figure, all_axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.6), layout="constrained")
    for axes, (title, (rows, oracle)) in zip(np.atleast_1d(all_axes), panels.items(), strict=True):
        summaries = summarise(rows, evaluation, {row["task"]: row for row in oracle})
        rounds = min(len(s.gains) for s in summaries)
        points = [_over_seeds(arm_rows(rows, evaluation, "finetuned", n)) for n in range(1, rounds + 1)]
        _line(axes, [400.0 * n for n in range(1, rounds + 1)], points, "ours", _COLORS[0])
        steps = [point[0] for point in oracle[0]["curve"]]
        scratch = np.mean([[point[1] for point in row["curve"]] for row in oracle], axis=0)
        axes.plot(steps, scratch, color="tab:red", lw=1.2, label="SAC from scratch")
        axes.axhline(float(np.mean([row["return_mean"] for row in oracle])), color="k", ls="--", lw=0.8, label="oracle")
        axes.axhline(float(np.mean([s.unadapted for s in summaries])), color="k", ls=":", lw=1, label="ours, unadapted")
        axes.set(xscale="log", xlabel="real environment steps on the new task", title=title)
        axes.grid(alpha=0.3)
    first = np.atleast_1d(all_axes)[0]
    first.set_ylabel("episode return")
    first.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _over_seeds(rows: list[Row]) -> Interval:
    return mean_interval(list(seed_means(rows).values()))


def _error(points: list[Interval]) -> Any:
    """[2, n] below and above; none for a single seed, whose interval is not known."""
    return np.nan_to_num(np.asarray([[p.mean - p.low for p in points], [p.high - p.mean for p in points]]), posinf=0.0)


def _line(axes: Axes, x: list[float], points: list[Interval], label: str, color: str) -> None:
    axes.errorbar(
        x, [p.mean for p in points], _error(points), color=color, label=label, marker="o", ms=3, capsize=3, lw=1.4
    )


def _label(label: str, rows: list[Row]) -> str:
    """Arms need not have the same number of seeds yet."""
    seeds = len({row["seed"] for row in rows})
    return f"{label} ({seeds} seed{'s' if seeds > 1 else ''})"


def _title(study: Study, rows: list[Row], curve: bool = False) -> str:
    """What was recorded, as it is: episodes, and intervals where there are seeds enough to know them."""
    some = [row for row in rows if (row["arm"] == "curve") is curve]
    episodes = len({row["episode"] for row in some})
    several = len({row["seed"] for row in rows}) > 1
    return f"{study.family}: {episodes} episodes each" + (", mean and 95% interval over seeds" if several else "")


def _finish(figure: Any, axes: Axes, path: Path) -> None:
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
