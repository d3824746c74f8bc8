"""How a command answers: a table for a person, or the same rows as JSON (`--json`) on standard output and nothing else
there. Progress is on standard error in either case."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(rows: Sequence[Mapping[str, Any]], table: Table, as_json: bool) -> None:
    """`table` is of these rows."""
    if as_json:
        print(json.dumps([dict(row) for row in rows], indent=1))
    else:
        Console().print(table)


def rates_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A column for each name; shares as per cent."""
    table = Table(*(name.replace("_", " ") for name in rows[0]))
    for row in rows:
        table.add_row(*(f"{value:.0%}" if isinstance(value, float) else str(value) for value in row.values()))
    return table
