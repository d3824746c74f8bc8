"""The picture of an evaluation: return against target speed, or per task where tasks have no order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_STAGES = (
    ("unadapted", "unadapted", "#8c8c8c", "s"),
    ("context_adapted", "context-adapted", "#0072b2", "o"),
    ("finetuned", "fine-tuned by relabelling", "#d55e00", "D"),
)
_ORACLE_COLOUR = "#222222"


def plot(
    summary: Sequence[dict[str, Any]], path: Path, *, title: str, training_range: tuple[float, float] | None
) -> None:
    """Writes a PNG. `training_range`: target speeds (m/s) that the checkpoint was trained for, to be shaded."""
    by_speed = all(entry["target"] is not None for entry in summary)
    figure, axes = plt.subplots(figsize=(8.0, 4.8), layout="constrained")
    try:
        if by_speed:
            _curves(axes, sorted(summary, key=lambda entry: float(entry["target"])), training_range)
        else:
            _groups(axes, summary)
        axes.set_ylabel("episode return (200 steps)")
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, loc="outside lower center", ncols=5, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    finally:
        plt.close(figure)


def _curves(axes: Axes, summary: Sequence[dict[str, Any]], training_range: tuple[float, float] | None) -> None:
    speeds = [entry["target"] for entry in summary]
    if training_range is not None:
        axes.axvspan(*training_range, color="#eef3ea", zorder=0, label="speeds trained for")
    for key, label, colour, marker in _STAGES:
        means = [entry[key]["mean"] for entry in summary]
        axes.plot(speeds, means, color=colour, marker=marker, linewidth=2, markersize=6, label=label)
        axes.fill_between(
            speeds,
            [_bound(entry[key], "low") for entry in summary],
            [_bound(entry[key], "high") for entry in summary],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    known = [(entry["target"], entry["oracle"]) for entry in summary if entry["oracle"] is not None]
    if known:
        axes.plot(
            *zip(*known, strict=True),
            color=_ORACLE_COLOUR,
            linestyle="--",
            linewidth=1.5,
            label="oracle (SAC on that task)",
        )
    axes.set_xlabel("target speed (m/s)")


def _groups(axes: Axes, summary: Sequence[dict[str, Any]]) -> None:
    width = 0.26
    for offset, (key, label, colour, _) in enumerate(_STAGES):
        positions = [index + (offset - 1) * width for index in range(len(summary))]
        means = [entry[key]["mean"] for entry in summary]
        errors = [
            [entry[key]["mean"] - _bound(entry[key], "low") for entry in summary],
            [_bound(entry[key], "high") - entry[key]["mean"] for entry in summary],
        ]
        axes.bar(positions, means, width, yerr=errors, color=colour, label=label, error_kw={"linewidth": 1})
    shown = False
    for index, entry in enumerate(summary):
        if entry["oracle"] is not None:
            axes.hlines(
                entry["oracle"],
                index - 0.45,
                index + 0.45,
                colors=_ORACLE_COLOUR,
                linestyles="--",
                label="" if shown else "oracle (SAC on that task)",
            )
            shown = True
    axes.axhline(0.0, color="#444444", linewidth=0.8)
    axes.set_xticks(range(len(summary)), [entry["task"].split()[-1] for entry in summary])
    axes.set_xlabel("negated joints")


def _bound(stage: dict[str, Any], side: str) -> float:
    """The interval's bound; the mean itself where one sample has none."""
    return float(stage["mean"] if stage[side] is None else stage[side])
