"""What the second act leaves: tables for 80 columns, second_act.json and second_act.png."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mier_mujoco import provenance
from mier_mujoco.second_act import AFTER, BEFORE, Candidate, Moment, SecondAct
from mier_mujoco.second_act_plot import plot

OUT_OF_DISTRIBUTION = 95.0
"""Percentile from which on the service says so."""
_NONE = "–"


def begin(console: Console) -> None:
    """What is about to be seen."""
    console.print(
        f"[bold]second act[/bold]: joints {_joints(BEFORE)} answer the wrong way round, as in training; in mid-run\n"
        f"it is {_joints(AFTER)} instead, which training never saw. The robot only acts and submits.",
        highlight=False,
    )
    console.print(f"[bold]{_HEAD}[/bold]", highlight=False)


_HEAD = "episode  step  joints  reward   percentile   context moved   task  version"


def moment(console: Console, now: Moment) -> None:
    """A line as it happens."""
    percentile = _NONE if now.ood_percentile is None else f"{now.ood_percentile:.1f}"
    strange = now.ood_percentile is not None and now.ood_percentile >= OUT_OF_DISTRIBUTION
    console.print(
        f"{now.episode:>7}  {now.step:>4}  {_joints(now.joints):>6}  {now.reward:>6.2f}   "
        f"{percentile:>10}   {now.context_moved:>13.2f}   {now.task_number:>4}  {now.version:>7}",
        style="red" if strange and now.reward < 0 else "yellow" if strange else "",
        highlight=False,
    )


def write(console: Console, found: SecondAct, out: Path, facts: dict[str, object]) -> None:
    """Tables, JSON and picture."""
    console.print(_returns(found))
    console.print(_candidates(found.candidates))
    out.mkdir(parents=True, exist_ok=True)
    tree = asdict(found) | facts | {
        "command": provenance.command(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }  # fmt: skip
    (out / "second_act.json").write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n")
    plot(found, out / "second_act.png")
    console.print(f"[dim]{out / 'second_act.json'}  {out / 'second_act.png'}[/dim]")


def _returns(found: SecondAct) -> Table:
    table = Table(title="returns of the episodes as they were run (the joints flip in the third)", title_justify="left")
    for number in range(len(found.returns)):
        table.add_column(f"episode {number}", justify="right", no_wrap=True)
    table.add_row(*(f"{value:.0f}" for value in found.returns))
    return table


def _candidates(candidates: tuple[Candidate, ...]) -> Table:
    table = Table(
        title="candidates, each judged against what acted",
        title_justify="left",
        caption="imagined: 95% bounds of candidate less incumbent, in the worlds of the gate;\n"
        "true: returns in the simulator, of incumbent → candidate; acts: what acts afterwards",
        caption_justify="left",
    )
    table.add_column("candidate")
    table.add_column("verdict")
    for heading in ("imagined", "true", "acts"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in candidates:
        colour = {"promoted": "green", "rejected": "red"}.get(one.verdict, "yellow")
        table.add_row(
            one.name,
            f"[{colour}]{one.verdict.replace('_', ' ')}[/{colour}]",
            _bounds(one),
            f"{one.incumbent_return:.0f} → {one.candidate_return:.0f}",
            f"v{one.acts}: {one.acting_return:.0f}",
        )
    return table


def _bounds(one: Candidate) -> str:
    if one.gate is None or one.gate.lowest_difference is None or one.gate.highest_difference is None:
        return _NONE
    return f"{_short(one.gate.lowest_difference)} to {_short(one.gate.highest_difference)}"


def _short(value: float) -> str:
    """Whole, or with its power of ten where that would be too long."""
    return f"{value:.0f}" if abs(value) < 1e5 else f"{value:.0e}"


def _joints(joints: tuple[int, ...]) -> str:
    return "+".join(map(str, joints))
