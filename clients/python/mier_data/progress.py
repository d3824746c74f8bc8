"""How far a transfer is: a bar on standard error, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mier_client.transport import TransitionBatch

Counter = Callable[[Iterable[TransitionBatch]], Iterator[TransitionBatch]]


@contextmanager
def counted(total: int) -> Iterator[Counter]:
    """Gives what counts the steps of the batches that go through it."""
    console = Console(stderr=True)
    columns = (TextColumn("transitions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def count(batches: Iterable[TransitionBatch]) -> Iterator[TransitionBatch]:
            for batch in batches:
                yield batch
                progress.advance(task, len(batch.reward))

        yield count
