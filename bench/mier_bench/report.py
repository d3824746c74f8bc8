"""The rows as `out/bench.json`, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from mier_bench import hardware
from mier_bench.interleaving import Pace
from mier_bench.row import Row
from mier_mujoco import provenance

_BUSY = 0.9


def document(rows: Sequence[Row], pace: Pace, core: int | None) -> dict[str, Any]:
    """All of it, as JSON values."""
    return {
        "command": provenance.command(),
        "pinned_to_core": core,
        "rounds": pace.rounds,
        "slice_s": pace.slice_s,
        "versions": hardware.versions(),
        "hardware": hardware.hardware(),
        "rows": [row.to_json() for row in rows],
    }


def table(rows: Sequence[Row]) -> Table:
    """One line a row."""
    made = Table(title="ours beside its peers: medians over rounds, ratio with its 95% interval", show_lines=False)
    for name in ("#", "what", "ours", "peer", "floor", "ratio", "target", "met"):
        made.add_column(name, justify="left" if name in ("what", "target", "met") else "right")
    for row in rows:
        made.add_row(
            str(row.id),
            f"{row.what}, against {row.peer_name}",
            _figure(row.ours, row.unit),
            _figure(row.peer, row.unit),
            _figure(row.floor, row.unit),
            _ratio(row),
            str(row.target),
            {True: "yes", False: "[bold]no[/bold]", None: row.notes or "-"}[row.met],
        )
    return made


def _figure(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.4g} {unit}"


def _ratio(row: Row) -> str:
    if row.ratio is None or row.interval is None:
        return "-"
    text = f"{row.ratio:.2f} [{row.interval[0]:.2f}, {row.interval[1]:.2f}]"
    busy = row.cpu_share is not None and row.cpu_share < _BUSY and row.cpu_ratio is not None
    return f"{text} (busy; by processor time {row.cpu_ratio:.2f})" if busy else text
