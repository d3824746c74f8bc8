"""Everything an evaluation leaves: results.json, summary.json, return_vs_target.png, and the table on the console."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mier_mujoco import oracle as oracles
from mier_mujoco import results
from mier_mujoco.evaluation import Unit
from mier_mujoco.plot import plot
from mier_mujoco.results import Row
from mier_mujoco.rows import TaskResult
from mier_mujoco.settings import Settings
from mier_mujoco.table import summary_table

PLOT_NAME = "return_vs_target.png"


def write(settings: Settings, found: Mapping[Unit, TaskResult], console: Console) -> list[Row]:
    """Writes the files into the settings' folder, shows the table; the rows of results.json."""
    reference = oracles.read_oracle(settings.oracle or oracles.bundled_path(), settings.task)
    table = results.rows(settings, found, reference)
    summary = results.summarise(table, settings.tasks())
    settings.out.mkdir(parents=True, exist_ok=True)
    _write_json(settings.out / "results.json", table)
    _write_json(settings.out / "summary.json", summary)
    title = f"{settings.task}: episode returns, {settings.episodes} episodes × {settings.repeats} seed(s)"
    plot(summary, settings.out / PLOT_NAME, title=title, training_range=settings.trained_speeds)
    console.print(summary_table(summary, title))
    console.print(f"[dim]{settings.out / 'results.json'}  {settings.out / PLOT_NAME}[/dim]")
    return table


def _write_json(path: Path, value: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
