"""What a session declares of acting, and holding calls to it: limits, age of observations, what answers in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mier_proto.action_limits import Limiter
from mier_service.errors import Reason, ServiceError, Violation, invalid
from mier_service.values import (
    ActingRules,
    ActionLimitsValue,
    EnvironmentValue,
    FallbackKind,
    SessionValue,
)

FloatArray = npt.NDArray[np.float32]
MAX_AGE_MS = 3_600_000.0


@dataclass(frozen=True, eq=False)
class EnforcedRules:
    """One session's."""

    environment: EnvironmentValue
    fallback: FallbackKind | None
    limiter: Limiter
    is_tighter: bool
    """Whether a policy's actions can leave the limits; they never leave the environment's bounds."""
    max_observation_age_ms: float | None
    zero: FloatArray
    """[action_dim], what is nearest to zero within the limits."""

    @staticmethod
    def of(session: SessionValue) -> EnforcedRules | None:
        """None where there is nothing to hold a call to."""
        return enforced(session.environment, session.fallback, session.action_limits, session.max_observation_age_ms)

    def require_young(self, observed_at_unix_us: int | None, now_s: float) -> None:
        """Refuses an observation that is older than the session allows, or as far in the future: then the clocks
        disagree, and its age cannot be told."""
        if self.max_observation_age_ms is None:
            return
        if observed_at_unix_us is None:
            raise invalid(
                "observed_at_unix_us",
                "observed_at_unix_us: expected when the observation was made, since the session has "
                "max_observation_age_ms; got nothing",
            )
        age_ms = 1e3 * now_s - observed_at_unix_us / 1e3
        if abs(age_ms) > self.max_observation_age_ms:
            raise ServiceError(
                Reason.OBSERVATION_TOO_OLD,
                f"expected an observation of at most {self.max_observation_age_ms:g} ms, "
                + (f"got one {age_ms:.1f} ms old" if age_ms > 0 else f"got one {-age_ms:.1f} ms in the future")
                + ": observe anew, or compare the clocks",
                (Violation("observed_at_unix_us", f"the observation is {age_ms:.1f} ms old"),),
            )


def enforced(
    environment: EnvironmentValue,
    fallback: FallbackKind | None,
    limits: ActionLimitsValue | None,
    max_observation_age_ms: float | None,
) -> EnforcedRules | None:
    """As `EnforcedRules.of`, of what a session has declared."""
    given = limits or ActionLimitsValue()
    max_change = given.max_change or environment.action_max_change
    if fallback is None and limits is None and max_observation_age_ms is None and not max_change:
        return None
    limiter = Limiter(given.low or environment.action_low, given.high or environment.action_high, max_change)
    zero, _ = limiter(np.zeros(environment.action_dim, np.float32), None)
    return EnforcedRules(
        environment=environment,
        fallback=fallback,
        limiter=limiter,
        is_tighter=limits is not None or limiter.limits_change,
        max_observation_age_ms=max_observation_age_ms,
        zero=zero,
    )


def require_legal(rules: ActingRules, environment: EnvironmentValue) -> None:
    """Refuses limits that do not fit the environment or are wider than it, naming each entry at fault."""
    age_ms = rules.max_observation_age_ms
    if age_ms is not None and not 0.0 < age_ms <= MAX_AGE_MS:
        raise invalid("max_observation_age_ms", f"expected 0 < milliseconds <= {MAX_AGE_MS:g}, got {age_ms:g}")
    if rules.action_limits is None:
        return
    found = _violations(rules.action_limits, environment)
    if found:
        raise ServiceError(
            Reason.INVALID_ARGUMENT, "; ".join(f"{v.field}: {v.description}" for v in found), tuple(found)
        )


def _violations(limits: ActionLimitsValue, environment: EnvironmentValue) -> list[Violation]:
    names = environment.action_names
    found = []
    for name in ("low", "high", "max_change"):
        given = getattr(limits, name)
        if given is not None and len(given) != len(names):
            text = f"expected {len(names)} entries, one for each action, got {len(given)}"
            found.append(Violation(f"action_limits.{name}", text))
    if found:
        return found
    low, high = limits.low or environment.action_low, limits.high or environment.action_high
    widest = environment.action_max_change or [float("inf")] * len(names)
    for i, action in enumerate(names):
        least, most = environment.action_low[i], environment.action_high[i]
        if limits.low is not None and not least <= low[i] <= high[i]:
            text = f"expected {least} <= low <= {high[i]} for {action}, got {low[i]}"
            found.append(Violation("action_limits.low", text))
        if limits.high is not None and not low[i] <= high[i] <= most:
            text = f"expected {low[i]} <= high <= {most} for {action}, got {high[i]}"
            found.append(Violation("action_limits.high", text))
        if limits.max_change is not None and not 0.0 < limits.max_change[i] <= widest[i]:
            text = f"expected 0 < max_change <= {widest[i]} for {action}, got {limits.max_change[i]}"
            found.append(Violation("action_limits.max_change", text))
    return found
