"""Pictures of recorded runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mier_trainer.runs import Run


def plot_curve(rows: list[dict[str, Any]], run: Run, path: Path) -> None:
    """Returns over environment steps: training tasks as collected, test tasks as evaluated."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    steps = [row["environment_steps"] / 1e6 for row in rows]
    left.plot(steps, [row["return_prior"] for row in rows], label="before adaptation", color="tab:gray", lw=1)
    left.plot(steps, [row["return_adapted"] for row in rows], label="after adaptation", color="tab:blue", lw=1)
    left.set(title="training tasks, exploring policy", xlabel="environment steps (millions)", ylabel="episode return")
    evaluated = [row for row in rows if "evaluation" in row]
    names = [e["task"] for e in evaluated[-1]["evaluation"] if e["kind"] == "test"] if evaluated else []
    for i, name in enumerate(names):
        right.plot(
            [row["environment_steps"] / 1e6 for row in evaluated],
            [next(e["context_adapted"] for e in row["evaluation"] if e["task"] == name) for row in evaluated],
            label=name,
            color=plt.get_cmap("viridis")(i / max(1, len(names) - 1)),
        )
    right.set(title="test tasks, context-adapted", xlabel="environment steps (millions)")
    for axes in (left, right):
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.suptitle(run.name)
    figure.savefig(path, dpi=110)
    plt.close(figure)
