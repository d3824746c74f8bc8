"""The picture of the second act: reward and score over the run, and the candidates as the gate saw them."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mier_mujoco.second_act import FLIP, Moment, SecondAct

_BLUE, _RED, _GREY, _GREEN = "#0072b2", "#d55e00", "#8c8c8c", "#009e73"
_COLOURS = {"promoted": _GREEN, "rejected": _RED}


def plot(found: SecondAct, path: Path) -> None:
    """Writes a PNG."""
    figure, (rewards, scores, judged) = plt.subplots(
        3, 1, figsize=(8.0, 8.0), layout="constrained", height_ratios=(3, 2, 3)
    )
    try:
        at = _positions(found.moments)
        _run(rewards, at, [moment.reward for moment in found.moments], _BLUE)
        rewards.set_ylabel("reward per step")
        rewards.set_title("joints flip in mid-run; nobody tells the service", loc="left", fontsize=11)
        known = [(x, m.ood_percentile) for x, m in zip(at, found.moments, strict=True) if m.ood_percentile is not None]
        _run(scores, [x for x, _ in known], [float(y or 0.0) for _, y in known], _RED)
        scores.axhline(95.0, color=_GREY, linestyle="--", linewidth=1.0)
        scores.set_ylabel("OOD percentile")
        scores.set_xlabel("step of the run")
        _judged(judged, found)
        for axes in (rewards, scores, judged):
            axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    finally:
        plt.close(figure)


def _positions(moments: tuple[Moment, ...]) -> list[int]:
    longest = max(moment.step for moment in moments)
    return [moment.episode * longest + moment.step for moment in moments]


def _run(axes: Axes, at: list[int], values: list[float], colour: str) -> None:
    axes.plot(at, values, color=colour, linewidth=2, marker="o", markersize=4)
    axes.axvline(FLIP[0] * 200 + FLIP[1], color="#222222", linestyle=":", linewidth=1.5)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def _judged(axes: Axes, found: SecondAct) -> None:
    for row, one in enumerate(found.candidates):
        colour = _COLOURS.get(one.verdict, _GREY)
        gate = one.gate
        if gate is not None and gate.lowest_difference is not None and gate.highest_difference is not None:
            bounds = [gate.lowest_difference, gate.highest_difference]
            axes.plot(bounds, [row, row], color=colour, linewidth=7, alpha=0.5)
        axes.plot(one.candidate_return - one.incumbent_return, row, marker="D", color=colour, markersize=7)
    axes.axvline(0.0, color="#444444", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=100.0)  # in a world that it blows up, a ruined policy may lose any sum
    labels = [f"{one.name}\n{one.verdict.replace('_', ' ')}" for one in found.candidates]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel("candidate less incumbent: imagined by the gate (bar, 95%), true (diamond)")
    axes.set_title("candidates, each judged against what acted", loc="left", fontsize=11)
