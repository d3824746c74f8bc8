"""What the figures show, worked out from recorded rows: values only.

A sample is a seed: its training run, its exploration and its fine-tune. Episodes of one seed are not independent of
each other, so they are averaged first; intervals are Student's t over seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mier.intervals import Interval, mean_interval

Row = Mapping[str, Any]
GAIN_MINIMUM_SPAN = 1e-9


def seed_means(rows: Iterable[Row]) -> dict[int, float]:
    """Each seed's mean return: first over the episodes of each task, then over tasks."""
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["seed"]][row["task"]].append(row["return"])
    return {seed: float(np.mean([np.mean(v) for v in tasks.values()])) for seed, tasks in sorted(found.items())}


def arm_rows(rows: Iterable[Row], evaluation: str, stage: str, number: int = 1) -> list[Row]:
    """Rows of one evaluation's stage; of a fine-tuned one those of round `number`."""
    return [
        row
        for row in rows
        if row["evaluation"] == evaluation and row["arm"] == stage and (stage != "finetuned" or row["round"] == number)
    ]


def normalised_gain(value: float, unadapted: float, oracle: float) -> float:
    """(value - unadapted) / (oracle - unadapted)."""
    return (value - unadapted) / (oracle - unadapted)


@dataclass(frozen=True)
class TaskSummary:
    """One test task by one evaluation."""

    task: str
    unadapted: float
    context_adapted: float
    finetuned: tuple[Interval, ...]
    """After each round, over seeds."""
    oracle: float
    gains: tuple[float, ...]
    """Normalised, after each round."""
    gain_interval: Interval
    """Of round 1, over seeds."""
    scratch_steps: float | None
    """Environment steps that SAC from scratch needs for the return of round 1; None: more than it was given."""
    scratch_limit: float
    real_steps: int

    @property
    def sample_ratio(self) -> float:
        """`scratch_steps` over real steps used; a lower bound where SAC never got there."""
        return (self.scratch_limit if self.scratch_steps is None else self.scratch_steps) / self.real_steps


def summarise(rows: list[Row], evaluation: str, oracle: Mapping[str, Row]) -> list[TaskSummary]:
    """Every task that `evaluation` has rows of; `oracle` by task name, rows as `mier-train oracle` writes them."""
    found = []
    mine = [row for row in rows if row["evaluation"] == evaluation]
    for task in dict.fromkeys(row["task"] for row in mine):
        of_task = [row for row in mine if row["task"] == task]
        before = seed_means(arm_rows(of_task, evaluation, "unadapted"))
        unadapted = float(np.mean(list(before.values())))
        reference = oracle[task]["return_mean"]
        last = max(row["round"] for row in of_task)
        rounds = [seed_means(arm_rows(of_task, evaluation, "finetuned", n)) for n in range(1, last + 1)]
        first = rounds[0]
        means = [float(np.mean(list(r.values()))) for r in rounds]
        found.append(
            TaskSummary(
                task,
                unadapted,
                float(np.mean(list(seed_means(arm_rows(of_task, evaluation, "context_adapted")).values()))),
                tuple(mean_interval(list(r.values())) for r in rounds),
                reference,
                tuple(normalised_gain(m, unadapted, reference) for m in means),
                mean_interval([normalised_gain(v, before[seed], reference) for seed, v in first.items()]),
                steps_to_reach(oracle[task]["curve"], means[0]),
                oracle[task]["environment_steps"],
                max(row["real_steps"] for row in of_task if row["round"] == 1),
            )
        )
    return found


def steps_to_reach(curve: list[list[float]], value: float) -> float | None:
    """First environment steps at which a learning curve [[steps, return], ...] is at `value`, straight between points.

    Before the first point nothing is known, so that point's steps are the least that can come; None if it never is.
    """
    for i, (steps, reached) in enumerate(curve):
        if reached >= value:
            if i == 0:
                return steps
            earlier, below = curve[i - 1]
            return earlier + (steps - earlier) * (value - below) / max(reached - below, GAIN_MINIMUM_SPAN)
    return None


def curve(rows: list[Row], evaluation: str) -> list[tuple[int, Interval, float]]:
    """(updates, return over seeds, mean seconds so far) of an evaluation's first round; updates 0 are context only."""
    points: dict[int, list[Row]] = defaultdict(list)
    points[0] = arm_rows(rows, evaluation, "context_adapted")
    for row in arm_rows(rows, evaluation, "curve"):
        points[row["updates"]].append(row)
    return [
        (
            updates,
            mean_interval(list(seed_means(some).values())),
            float(np.mean([row.get("seconds", row.get("adapt_s", 0.0)) for row in some])),
        )
        for updates, some in sorted(points.items())
        if some
    ]


def seconds_to(rows: list[Row], evaluation: str, share: float) -> float | None:
    """Mean seconds from the start of adapting until the return has come `share` of its way from unadapted to final."""
    before = np.mean(list(seed_means(arm_rows(rows, evaluation, "unadapted")).values()))
    after = np.mean(list(seed_means(arm_rows(rows, evaluation, "finetuned")).values()))
    goal = before + share * (after - before)
    return next((seconds for _, found, seconds in curve(rows, evaluation) if found.mean >= goal), None)
