"""The summary as a table for a person; fits a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

_NONE = "–"


def summary_table(summary: Sequence[dict[str, Any]], title: str) -> Table:
    """Mean episode returns per task, what fine-tuning added, and the share of the way to the oracle."""
    over = summary[0]["finetuned_minus_context_adapted"]["over"]
    table = Table(
        title=title,
        title_justify="left",
        caption=f"difference: fine-tuned minus context-adapted, with its 95% interval over {over}\n"
        "gain: share of the way from unadapted to oracle, context-adapted → fine-tuned\n"
        f"{_gate([promotion for entry in summary for promotion in entry['promotions']])}",
        caption_justify="left",
    )
    table.add_column("task", no_wrap=True)
    for heading in ("un-\nadapted", "context-\nadapted", "fine-\ntuned", "oracle", "difference", "gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in summary:
        table.add_row(
            entry["task"],
            *(f"{entry[stage]['mean']:.1f}" for stage in ("unadapted", "context_adapted", "finetuned")),
            _NONE if entry["oracle"] is None else f"{entry['oracle']:.1f}",
            _interval(entry["finetuned_minus_context_adapted"]),
            _gains(entry["normalised_gain_context_adapted"], entry["normalised_gain_finetuned"]),
        )
    return table


def _gate(promotions: Sequence[str]) -> str:
    acting = sum(promotion in ("promoted", "ungated") for promotion in promotions)
    if "ungated" in promotions:
        return f"gate: none, {acting} fine-tuned policies acted unjudged"
    return f"gate: promoted {acting} of {len(promotions)} fine-tuned policies; elsewhere what acted went on acting"


def _interval(difference: dict[str, Any]) -> str:
    text = f"{difference['mean']:+.0f}"
    if difference["low"] is None:
        return text
    return f"{text}\n[{difference['low']:.0f}, {difference['high']:.0f}]"


def _gains(context: float | None, finetuned: float | None) -> str:
    return _NONE if context is None or finetuned is None else f"{context:.2f}\n→ {finetuned:.2f}"
