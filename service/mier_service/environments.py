"""The environment of a checkpoint: as a value, and whether a caller's own environment fits it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from mier.types import EnvSpec
from mier_service.errors import Reason, ServiceError, Violation
from mier_service.values import WHOLE, EnvironmentValue, Given, HealthyRangeValue, VariesValue

_RELATIVE_TOLERANCE = 1e-6
"""Bounds and times may have gone through float32 on the way."""


def environment_value(spec: EnvSpec) -> EnvironmentValue:
    """The spec as callers see it."""
    return EnvironmentValue(
        id=spec.id,
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
        observation_names=list(spec.observation_names),
        action_names=list(spec.action_names),
        action_low=list(spec.action_low),
        action_high=list(spec.action_high),
        dt_s=spec.dt_s,
        horizon_steps=spec.horizon_steps,
        varies=VariesValue(spec.varies.value),
        healthy_ranges=[HealthyRangeValue(index=r.index, low=r.low, high=r.high) for r in spec.healthy_ranges],
        action_max_change=list(spec.action_max_change),
    )


Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=10_000)]
Count = Annotated[int, Field(ge=1), WHOLE]
Bounds = Annotated[list[float], Field(max_length=10_000)]


class ExpectedEnvironment(Given):
    """The caller's own environment. What is left out is not compared."""

    id: str | None = Field(default=None, max_length=200, examples=["cheetah-vel-ood"])
    observation_dim: Count | None = Field(default=None, description="Entries of an observation.", examples=[20])
    action_dim: Count | None = Field(default=None, description="Entries of an action.", examples=[6])
    observation_names: Names | None = Field(default=None, description="Order of an observation. [observation_dim]")
    action_names: Names | None = Field(default=None, description="Order of an action. [action_dim]")
    action_low: Bounds | None = Field(default=None, description="Lowest legal action. [action_dim]")
    action_high: Bounds | None = Field(default=None, description="Highest legal action. [action_dim]")
    dt_s: float | None = Field(default=None, gt=0, description="Time between two actions, in seconds.", examples=[0.05])
    horizon_steps: Count | None = Field(default=None, description="Steps of an episode.", examples=[200])
    varies: VariesValue | None = None
    healthy_ranges: list[HealthyRangeValue] | None = Field(default=None, max_length=10_000)
    action_max_change: Bounds | None = Field(default=None, description="Largest change in one step. [action_dim]")


def require_fit(expected: ExpectedEnvironment, actual: EnvironmentValue, checkpoint: str) -> None:
    """Refuses an environment that differs from the checkpoint's, naming every difference with both values."""
    if differences := _differences(expected, actual, "yours"):
        raise ServiceError(
            Reason.ENVIRONMENT_MISMATCH,
            f"the environment does not fit checkpoint {checkpoint!r}: {_text(differences)}. "
            "Choose a checkpoint that was trained for it, or change the environment",
            tuple(Violation(f"expected_environment.{name}", text) for name, text in differences.items()),
        )


def require_same(session: EnvironmentValue, actual: EnvironmentValue, checkpoint: str) -> None:
    """Refuses a checkpoint of another environment than the session's, naming every difference with both values."""
    if differences := _differences(session, actual, "the session's"):
        text = f"checkpoint {checkpoint!r} was trained for another environment: {_text(differences)}"
        raise ServiceError(
            Reason.ENVIRONMENT_MISMATCH,
            f"{text}. Choose one of the session's own, or create a new session",
            (Violation("checkpoint", text),),
        )


def _differences(
    expected: ExpectedEnvironment | EnvironmentValue, actual: EnvironmentValue, whose: str
) -> dict[str, str]:
    """What differs, by name; what `expected` leaves out is not compared."""
    found = {}
    for name in EnvironmentValue.model_fields:
        wanted, have = getattr(expected, name), getattr(actual, name)
        if wanted is not None and not _same(wanted, have):
            found[name] = f"{whose} is {_short(wanted)}, the checkpoint's is {_short(have)}"
    return found


def _text(differences: dict[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in differences.items())


def _same(wanted: object, have: object) -> bool:
    if isinstance(wanted, float) and isinstance(have, float | int):
        return math.isclose(wanted, have, rel_tol=_RELATIVE_TOLERANCE)
    if isinstance(wanted, HealthyRangeValue) and isinstance(have, HealthyRangeValue):
        return wanted.index == have.index and _same([wanted.low, wanted.high], [have.low, have.high])
    if isinstance(wanted, Sequence) and isinstance(have, Sequence) and not isinstance(wanted, str):
        return len(wanted) == len(have) and all(map(_same, wanted, have))
    return wanted == have


def _short(value: object) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"{value[:8]!r}... ({len(value)} entries)"
    return repr(value)
