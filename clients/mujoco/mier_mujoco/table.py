"""The summary as a table for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

_NONE = "–"


def summary_table(summary: Sequence[dict[str, Any]], title: str) -> Table:
    """Mean episode returns per task, and the share of the way to the oracle."""
    table = Table(title=title, title_justify="left")
    table.add_column("task")
    for heading in ("unadapted", "context-adapted", "fine-tuned", "oracle"):
        table.add_column(heading, justify="right")
    table.add_column("fine-tuned − context-adapted [95%]", justify="right")
    table.add_column("gain: context", justify="right")
    table.add_column("gain: fine-tuned", justify="right")
    for entry in summary:
        difference = entry["finetuned_minus_context_adapted"]
        table.add_row(
            entry["task"],
            *(f"{entry[stage]['mean']:.1f}" for stage in ("unadapted", "context_adapted", "finetuned")),
            _NONE if entry["oracle"] is None else f"{entry['oracle']:.1f}",
            f"{difference['mean']:+.1f} [{difference['low']:+.1f}, {difference['high']:+.1f}]",
            *(_share(entry[f"normalised_gain_{stage}"]) for stage in ("context_adapted", "finetuned")),
        )
    return table


def _share(gain: float | None) -> str:
    return _NONE if gain is None else f"{gain:.2f}"
