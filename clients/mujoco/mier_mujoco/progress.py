"""What a person sees while it works: one bar per task; with `--watch` a table of all that is known of each, as it
becomes known; plain lines where there is no terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from mier_mujoco.evaluation import Unit
from mier_mujoco.robot import Progress
from mier_mujoco.settings import Settings

_STAGES = ("unadapted", "context-adapted", "fine-tuned")
_KNOWN = (*_STAGES, "OOD", "gate")
_PER_S = 8
"""Times that the terminal is drawn."""


class Display:
    """Bars of all tasks under way; tasks appear as they start. `progress` is told from many threads."""

    def __init__(self, console: Console, settings: Settings) -> None:
        self._console, self._settings = console, settings
        self._known: dict[str, dict[str, str]] = {}
        """By task and name of the fact."""
        self._bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[phase]}"),
            console=console,
            disable=not console.is_terminal,
        )
        watched = Live(get_renderable=self._table, console=console, refresh_per_second=_PER_S)
        self._shown: Bars | Live = watched if settings.watch and console.is_terminal else self._bars

    def __enter__(self) -> Self:
        self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.stop()

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(text, style="yellow", highlight=False, markup=False)

    def of(self, unit: Unit) -> Progress:
        """The progress of one task, which begins now."""
        label = unit.label(self._settings)
        known = self._known.setdefault(label, {})
        return _UnitProgress(self._bars, self._bars.add_task(label, phase="starting"), self._console, label, known)

    def _table(self) -> RenderableType:
        """Mean returns so far, where the task lies among the training tasks, and what the gate said."""
        table = Table(
            "task", *(f"return {name}" for name in _STAGES), "OOD percentile", "gate", title=self._settings.url
        )
        for label, known in list(self._known.items()):
            table.add_row(label, *(known.get(name, "") for name in _KNOWN))
        return Group(table, self._bars)


class _UnitProgress:
    def __init__(self, bars: Bars, bar: TaskID, console: Console, label: str, known: dict[str, str]) -> None:
        self._bars, self._bar, self._console, self._label, self._known = bars, bar, console, label, known

    def phase(self, name: str, total: int) -> None:
        self._bars.update(self._bar, phase=name, total=total, completed=0)
        if not self._console.is_terminal:
            self._console.print(f"{self._label}: {name}")

    def advance(self, parts: int) -> None:
        self._bars.update(self._bar, completed=parts)

    def learned(self, what: str, value: str) -> None:
        self._known[what] = value
