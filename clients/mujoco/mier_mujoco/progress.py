"""What a person sees while it works: one bar per task, or plain lines where there is no terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from mier_mujoco.evaluation import Unit
from mier_mujoco.robot import Progress
from mier_mujoco.settings import Settings


class Display:
    """Bars of all tasks under way; tasks appear as they start."""

    def __init__(self, console: Console, settings: Settings) -> None:
        self._console, self._settings = console, settings
        self._bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[phase]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(text, style="yellow", highlight=False, markup=False)

    def of(self, unit: Unit) -> Progress:
        """The progress of one task, which begins now."""
        label = unit.label(self._settings)
        return _UnitProgress(self._bars, self._bars.add_task(label, phase="starting"), self._console, label)


class _UnitProgress:
    def __init__(self, bars: Bars, bar: TaskID, console: Console, label: str) -> None:
        self._bars, self._bar, self._console, self._label = bars, bar, console, label

    def phase(self, name: str, total: int) -> None:
        self._bars.update(self._bar, phase=name, total=total, completed=0)
        if not self._console.is_terminal:
            self._console.print(f"{self._label}: {name}")

    def advance(self, parts: int) -> None:
        self._bars.update(self._bar, completed=parts)
