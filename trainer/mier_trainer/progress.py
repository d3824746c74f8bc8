"""What a person sees of a long run: one rich bar with rates and returns, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_PLAIN_EVERY_S = 30.0


@contextmanager
def progress_bar(title: str, total: int, done: int) -> Iterator[Callable[[int, str], None]]:
    """Yields advance(steps, note): moves the bar by `steps` and shows `note` (rates, returns)."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    printed = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(steps: int, note: str = "") -> None:
            nonlocal printed
            bar.update(task, advance=steps, note=note or bar.tasks[0].fields["note"])
            if not console.is_terminal and time.monotonic() - printed > _PLAIN_EVERY_S:
                printed = time.monotonic()
                current = bar.tasks[0]
                left = current.time_remaining
                console.print(
                    f"{title} {current.percentage:.1f}% "
                    f"left {'?' if left is None else f'{left / 60:.0f} min'} {current.fields['note']}"
                )

        yield advance
