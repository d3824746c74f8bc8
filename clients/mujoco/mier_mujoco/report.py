"""Everything an evaluation leaves: results.json, summary.json, return_vs_target.png, and the table on the console."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mier_mujoco import oracle as oracles
from mier_mujoco import results, video
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
    title = (
        f"{settings.task}: episode returns ({_count(settings.episodes, 'episode')}, {_count(settings.repeats, 'seed')})"
    )
    plot(summary, settings.out / PLOT_NAME, title=_plot_title(table), training_range=settings.trained_speeds)
    console.print(summary_table(summary, title))
    for unit, result in found.items():
        if settings.video is not None and result.footage is not None:
            path = settings.video
            if len(found) > 1:
                words = unit.label(settings).replace("/", " per ").split()
                path = path.with_stem("-".join((path.stem, *words)))
            video.make(result.footage, path)
            console.print(f"[dim]{path}[/dim]")
    console.print(f"[dim]{settings.out / 'results.json'}  {settings.out / PLOT_NAME}[/dim]")
    return table


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _plot_title(table: Sequence[Row]) -> str:
    """What each curve was given: real data and updates."""
    steps, updates = max(row["real_steps"] for row in table), max(sum(row["finetune_updates"]) for row in table)
    episodes = len(table[0]["episode_returns"]["unadapted"])
    seeds = len({row["seed"] for row in table})
    return (
        f"{table[0]['checkpoint']}: {steps} real steps per task, {updates} updates by relabelling\n"
        f"mean and 95% interval, {_count(episodes, 'episode')} × {_count(seeds, 'seed')}"
    )


def _write_json(path: Path, value: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
