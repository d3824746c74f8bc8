"""`python -m mier_bench`: time the rows, write them down, print the table."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

import mier_envs  # noqa: F401 - registers the environments
from mier_bench.interleaving import Pace
from mier_bench.pinning import pinned
from mier_bench.report import document, table
from mier_bench.row import Row, Unequal
from mier_bench.rows import ROWS


@dataclass(frozen=True)
class Arguments:
    """Ours and its peers side by side, interleaved (docs/performance.md)."""

    ids: tuple[int, ...] = ()
    """Rows to run; all if none is given."""
    rounds: int = 9
    """Odd, at least 5."""
    slice_s: float = 0.5
    """Seconds of each contender in a round."""
    pin: bool = True
    """Keep to one core."""
    out: Path = Path("out/bench.json")


def main() -> int:
    """Exit status 1 where contenders were not equal, 2 for a row that there is not."""
    asked = tyro.cli(Arguments, prog="mier_bench")
    console = Console(width=None if sys.stdout.isatty() else 160)
    if unknown := sorted(set(asked.ids) - set(ROWS)):
        print(f"expected rows among {sorted(ROWS)}, came {unknown}", file=sys.stderr)
        return 2
    pace, unequal = Pace(asked.rounds, asked.slice_s), []
    rows: list[Row] = []
    with pinned(asked.pin) as core:
        for number in asked.ids or ROWS:
            console.print(f"row {number} ...", style="dim")
            try:
                rows += ROWS[number](pace)
            except Unequal as error:
                unequal.append(f"row {number}: {error}")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(document(rows, pace, core), indent=1) + "\n")
    console.print(table(rows))
    for line in unequal:
        print(f"not timed, its contenders are not equal: {line}", file=sys.stderr)
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
