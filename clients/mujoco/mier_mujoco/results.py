"""results.json (a list, one row per task and seed) and summary.json (per task over seeds, with intervals)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mier_envs.cheetah_families import mask_of
from mier_envs.families import Task
from mier_mujoco import provenance
from mier_mujoco.evaluation import Unit
from mier_mujoco.intervals import mean_interval
from mier_mujoco.rows import Round, Stage, TaskResult, normalised_gain, percentile_ms
from mier_mujoco.settings import Settings

Row = dict[str, Any]
"""One entry of results.json; JSON values only."""


def rows(settings: Settings, found: Mapping[Unit, TaskResult], oracle: Mapping[str, float]) -> list[Row]:
    """In the order of the tasks, then of the seeds."""
    ordered = sorted(found, key=lambda unit: (settings.tasks().index(unit.task), unit.seed))
    shared = {
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "command": provenance.command(),
    }
    return [_row(settings, unit, found[unit], oracle.get(unit.task.name)) | shared for unit in ordered]


def _row(settings: Settings, unit: Unit, result: TaskResult, oracle: float | None) -> Row:
    unadapted, context, finetuned = result.unadapted, result.context_adapted, result.finetuned
    return {
        "family": settings.task,
        "task": unit.task.name,
        "target": unit.task.target,
        "mask": list(mask_of(unit.task)),
        "unadapted": unadapted.mean,
        "context_adapted": context.mean,
        "finetuned": finetuned.mean,
        "oracle": oracle,
        "normalised_gain": {
            "context_adapted": normalised_gain(context.mean, unadapted.mean, oracle),
            "finetuned": normalised_gain(finetuned.mean, unadapted.mean, oracle),
        },
        "paired_difference": {
            "context_adapted_minus_unadapted": _paired(context, unadapted),
            "finetuned_minus_context_adapted": _paired(finetuned, context),
            "finetuned_minus_unadapted": _paired(finetuned, unadapted),
        },
        "episode_returns": {
            "unadapted": list(unadapted.returns),
            "context_adapted": list(context.returns),
            "finetuned": list(finetuned.returns),
        },
        "policy_versions": {
            "unadapted": unadapted.policy_version,
            "context_adapted": context.policy_version,
            "finetuned": finetuned.policy_version,
        },
        "rounds": [_round(one) for one in result.rounds],
        "real_steps": result.rounds[-1].transitions_used,
        "finetune_updates": [one.finetune_updates for one in result.rounds],
        "act_ms": {"p50": percentile_ms(result.act_seconds, 0.5), "p99": percentile_ms(result.act_seconds, 0.99)},
        "transport": settings.url.split("://")[0],
        "checkpoint": settings.checkpoint_name,
        "checkpoint_hash": result.checkpoint_hash,
        "seed": unit.seed,
    }


def _round(one: Round) -> Row:
    return {key: value for key, value in asdict(one).items() if key != "finetuned"} | {
        "collected_returns": list(one.collected_returns),
        "finetuned": one.finetuned.mean,
        "policy_version": one.finetuned.policy_version,
    }


def _paired(after: Stage, before: Stage) -> Row:
    """Mean difference over the shared starting states, with its 95% interval."""
    return asdict(mean_interval([_differences(after.returns, before.returns)]))


def _differences(after: Sequence[float], before: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(after, before, strict=True)]


def summarise(table: Sequence[Row], tasks: Sequence[Task]) -> list[Row]:
    """Per task over all seeds: means, and paired differences with intervals over seeds and episodes."""
    summary = []
    for task in tasks:
        mine = [row for row in table if row["task"] == task.name]
        entry: Row = {
            "family": mine[0]["family"],
            "task": task.name,
            "target": task.target,
            "seeds": [row["seed"] for row in mine],
            "episodes_per_seed": len(mine[0]["episode_returns"]["unadapted"]),
            "oracle": mine[0]["oracle"],
            "promotions": [one["promotion"] for row in mine for one in row["rounds"]],
        }
        for stage in ("unadapted", "context_adapted", "finetuned"):
            entry[stage] = asdict(mean_interval([row["episode_returns"][stage] for row in mine]))
        for after, before in (("finetuned", "context_adapted"), ("finetuned", "unadapted")):
            groups = [_differences(r["episode_returns"][after], r["episode_returns"][before]) for r in mine]
            entry[f"{after}_minus_{before}"] = asdict(mean_interval(groups))
        for stage in ("context_adapted", "finetuned"):
            entry[f"normalised_gain_{stage}"] = normalised_gain(
                entry[stage]["mean"], entry["unadapted"]["mean"], entry["oracle"]
            )
        summary.append(entry)
    return summary
