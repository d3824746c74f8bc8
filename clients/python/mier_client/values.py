"""What the service answers, as frozen values: the same whichever transport carried them.

Arrays are float32. Units and order of observations and actions are those of `Session.environment`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class Varies(StrEnum):
    """What differs from task to task."""

    REWARD = "reward"
    DYNAMICS = "dynamics"


class SessionState(StrEnum):
    """Whether a session learns."""

    ACTIVE = "active"
    PAUSED = "paused"
    """It acts and records; adapt and finetune are refused."""


class SessionMode(StrEnum):
    """Whether a session adapts by itself."""

    OFF = "off"
    CONTEXT = "context"
    """Its context follows the transitions as they come, and begins anew where the task changes."""
    AUTO = "auto"
    """That, and fine-tunes start by themselves where the task is out of distribution."""

    UNRECOGNIZED = "unrecognized"
    """Of a later release."""

    @classmethod
    def _missing_(cls, value: object) -> SessionMode:
        return cls.UNRECOGNIZED


class VersionOrigin(StrEnum):
    """What made a policy version."""

    CHECKPOINT = "checkpoint"
    ADAPT = "adapt"
    FINE_TUNE = "fine_tune"
    UNRECOGNIZED = "unrecognized"
    """Something that a later release of the service knows."""

    @classmethod
    def _missing_(cls, value: object) -> VersionOrigin:
        return cls.UNRECOGNIZED


class Promotion(StrEnum):
    """How a version was judged when it was published; ungated: not at all. Whether it acted, promotions tell."""

    UNGATED = "ungated"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    INSUFFICIENT_DATA = "insufficient_data"
    UNRECOGNIZED = "unrecognized"
    """Something that a later release of the service knows."""

    @classmethod
    def _missing_(cls, value: object) -> Promotion:
        return cls.UNRECOGNIZED


class PromotionKind(StrEnum):
    """What changed which version acts."""

    PUBLISH = "publish"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PIN = "pin"
    UNPIN = "unpin"
    MOVE = "move"
    UNRECOGNIZED = "unrecognized"
    """Something that a later release of the service knows."""

    @classmethod
    def _missing_(cls, value: object) -> PromotionKind:
        return cls.UNRECOGNIZED


class OperationState(StrEnum):
    """Where a background fine-tune stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED)


class FallbackKind(StrEnum):
    """What answers where an answer would be late; one that cannot gives way to the next of this order."""

    INCUMBENT = "incumbent"
    """The policy of the session that is in the service's memory already."""
    BASE_POLICY = "base_policy"
    """Version 1: the checkpoint's own policy under its prior context."""
    HOLD_LAST = "hold_last"
    HOLD_ZERO = "hold_zero"
    UNRECOGNIZED = "unrecognized"
    """Something that a later release of the service knows."""

    @classmethod
    def _missing_(cls, value: object) -> FallbackKind:
        return cls.UNRECOGNIZED


class FallbackReason(StrEnum):
    """Why a fallback answered."""

    LOADING = "loading"
    """What should act was still being read when the budget ended."""
    BUSY = "busy"
    """The budget was used up before the policy was asked, or by the time it had answered."""
    UNAVAILABLE = "unavailable"
    """What should act cannot be read now."""
    UNRECOGNIZED = "unrecognized"
    """Something that a later release of the service knows."""

    @classmethod
    def _missing_(cls, value: object) -> FallbackReason:
        return cls.UNRECOGNIZED


@dataclass(frozen=True)
class Fallback:
    """An answer in the place of another."""

    kind: FallbackKind
    reason: FallbackReason


@dataclass(frozen=True)
class ActionLimits:
    """Limits of actions, environment units; None: as the environment's."""

    low: tuple[float, ...] | None = None
    """[action_dim]"""
    high: tuple[float, ...] | None = None
    """[action_dim]"""
    max_change: tuple[float, ...] | None = None
    """[action_dim] From one step of an episode to the next; above 0."""


@dataclass(frozen=True)
class ShadowRule:
    """What a candidate goes through before it acts: it chooses on live observations, too, and none of that is sent."""

    acts: int
    """That it has to be compared on; 1 to 100,000."""
    max_difference: float | None = None
    """A share of the action's range, above 0, at most 1: a larger difference in any act rejects it; None: none does."""


class ShadowState(StrEnum):
    """Where a candidate in shadow stands."""

    RUNNING = "running"
    PASSED = "passed"
    """It came to act."""
    REJECTED = "rejected"
    """It differed by more than the session allows, or had no finite action."""
    SUPERSEDED = "superseded"
    """Something else came to act, another candidate came, or the task changed."""
    UNRECOGNIZED = "unrecognized"
    """Something that a later release of the service knows."""

    @classmethod
    def _missing_(cls, value: object) -> ShadowState:
        return cls.UNRECOGNIZED


@dataclass(frozen=True)
class Shadow:
    """What a candidate would have done, beside what was done; differences are shares of the action's range."""

    state: ShadowState
    acts: int
    """That were compared."""
    acts_wanted: int
    incumbent_version: int
    """That acted when it began."""
    max_difference: float | None = None
    """Above it the candidate is rejected; None: never."""
    mean_difference: float | None = None
    """Of all acts; None: none was seen."""
    quantile_difference: float | None = None
    """One act in twenty differs by more."""
    largest_difference: float | None = None
    """None: none was seen, or the candidate had no finite action."""
    at_limit: float | None = None
    """Share of acts in which an entry of the candidate's action was at a bound."""
    acting_at_limit: float | None = None
    """The same of what was done."""
    reason: str = ""
    """Why it ended; empty before."""


@dataclass(frozen=True)
class ActingRules:
    """What a session declares of acting when it is created."""

    fallback: FallbackKind | None = None
    """What answers where an answer would be late; None: nothing, it is refused (DeadlineExceeded)."""
    action_limits: ActionLimits | None = None
    """Tighter than the environment's; one that is wider is refused."""
    max_observation_age_ms: float | None = None
    """Older observations are refused; with it every act states `observed_at_unix_us`."""
    shadow: ShadowRule | None = None
    """What fine-tuned versions go through before they act; None: they act once the gate lets them."""


@dataclass(frozen=True)
class HealthyRange:
    """An observation entry outside [low, high] ends the episode (a fall)."""

    index: int
    low: float
    high: float


@dataclass(frozen=True)
class EnvironmentSpec:
    """The environment that a checkpoint was trained for: names in order, bounds, time."""

    id: str
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    dt_s: float
    horizon_steps: int
    varies: Varies
    healthy_ranges: tuple[HealthyRange, ...] = ()
    action_max_change: tuple[float, ...] = ()
    """Largest change of each action entry from one step to the next; empty: not limited."""

    @property
    def observation_dim(self) -> int:
        return len(self.observation_names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)


@dataclass(frozen=True)
class Window:
    """Which of a session's transitions count. At most one field is set; none means all."""

    last_steps: int | None = None
    """The newest so many, in the order in which they were stored; >= 1."""
    from_episode: int | None = None
    """Those of this episode number and higher ones."""

    def __post_init__(self) -> None:
        if self.last_steps is not None and self.from_episode is not None:
            raise ValueError(
                f"a window has last_steps or from_episode, got both ({self.last_steps} and {self.from_episode})"
            )


@dataclass(frozen=True, eq=False)
class ModelContext:
    """What adaptation inferred about the task. Number 0 is the checkpoint's prior, whose scores are None."""

    number: int
    values: FloatArray
    """[context_dim]"""
    heldout_nll_before: float | None
    """Negative log likelihood, nats per predicted value, of held-out transitions under the prior."""
    heldout_nll_after: float | None
    ood_score: float | None
    """How unlike the training tasks this one looks: 0 is typical, larger is stranger."""
    transitions_used: int
    ood_percentile: float | None = None
    """Where it lies among tasks of the training distribution: 0 to 100, from 95 on it counts as out of it. None where
    the checkpoint has nothing to compare with."""


@dataclass(frozen=True)
class Session:
    """One controlled system with its task."""

    id: str
    checkpoint: str
    checkpoint_hash: str
    environment: EnvironmentSpec
    seed: int
    """Seed of the exploration noise."""
    state: SessionState
    active_version: int
    """Number of the policy version that acts now."""
    model_context: ModelContext
    transitions_count: int
    create_time: datetime
    pinned: bool = False
    """Whether the active version stays until it is unpinned."""
    mode: SessionMode = SessionMode.OFF
    task_number: int = 1
    """1, and 1 more for each change of the task that was noticed."""
    task_start: int = 0
    """So many of its transitions, the first stored, are of earlier tasks."""
    rules: ActingRules = ActingRules()
    """As they were declared."""

    @property
    def limits(self) -> ActionLimits:
        """What its actions keep to: its own limits, and the environment's where it declared none."""
        own, environment = self.rules.action_limits or ActionLimits(), self.environment
        return ActionLimits(
            own.low or environment.action_low,
            own.high or environment.action_high,
            own.max_change or environment.action_max_change or None,
        )


@dataclass(frozen=True)
class Gate:
    """What the gate saw: imagined episodes of a fine-tuned candidate and of what acted, in the units of the reward.

    None is not known: too little data, or a world in which an episode blew up.
    """

    incumbent_version: int
    """That acted when the candidate was judged."""
    reason: str
    """What the verdict rests on, in words."""
    incumbent_return: float | None = None
    candidate_return: float | None = None
    lowest_difference: float | None = None
    """Lower 95% bound of candidate less incumbent, in the world that flatters the candidate least."""
    highest_difference: float | None = None
    """Upper 95% bound, in the world that flatters it most."""
    promote_above: float | None = None
    """The candidate is promoted if the lower bound is above this."""
    reject_below: float | None = None
    """It is rejected if the upper bound is below this."""
    starts: int | None = None
    """Real first states that were played from."""
    steps: int | None = None
    """Of an imagined episode."""


@dataclass(frozen=True)
class Returns:
    """Returns of whole episodes of the present task in which one version chose every step."""

    episodes: int
    mean: float
    """Undiscounted, in the unit of the reward."""
    low: float | None = None
    """Lower end of the mean's 95% interval; None for one episode."""
    high: float | None = None


@dataclass(frozen=True, eq=False)
class PolicyVersion:
    """Immutable: weights with the policy context they act under, and where both came from."""

    number: int
    parent: int
    """0 for version 1."""
    weights_hash: str
    policy_context: FloatArray
    """[context_dim]"""
    model_context_number: int
    origin: VersionOrigin
    promotion: Promotion
    operation_id: str | None
    """The fine-tune that made it."""
    checkpoint_hash: str
    transitions_used: int
    seed: int | None
    configuration_json: str | None
    """Settings of the fine-tune, as a JSON object."""
    create_time: datetime
    checkpoint: str = ""
    """Name of the checkpoint; empty from a service that does not say."""
    gate: Gate | None = None
    """None where it was not judged."""
    shadow: Shadow | None = None
    """What was seen of it in shadow, as of the listing; None: nothing."""
    returns: Returns | None = None
    """What was reported of it, as of the listing; None: no whole episode."""


@dataclass(frozen=True)
class PromotionRecord:
    """One entry of the record of what acted."""

    kind: PromotionKind
    from_version: int
    """The version that acted before; 0: none."""
    to_version: int
    """The version that acts from here on; a pin or an unpin may leave it."""
    who: str
    """Id of the key that was used, `anonymous` where callers are not asked for one, `service` where an adaptation or a
    fine-tune published, or returns that fell rolled back."""
    reason: str
    create_time: datetime


@dataclass(frozen=True)
class Fault:
    """Why an operation failed."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Operation:
    """A background fine-tune."""

    id: str
    session_id: str
    state: OperationState
    cancel_requested: bool
    updates_done: int
    updates_total: int
    """0 until known."""
    metrics: dict[str, float]
    """The learning's newest metrics by name; empty before the first report."""
    seed: int
    transitions_used: int
    start_version: int
    result_version: int | None
    """The version that it published."""
    error: Fault | None
    attempts: int
    create_time: datetime
    update_time: datetime
    reason: str = ""
    """Why the service began it by itself; empty where somebody asked."""


@dataclass(frozen=True)
class Submitted:
    """The transitions are durable."""

    stored: int
    """Steps that were new."""
    duplicates: int
    """Steps that were stored already, with the same content."""
    transitions_count: int
    """Transitions that the session holds now."""


@dataclass(frozen=True)
class Adapted:
    """What adaptation found."""

    model_context: ModelContext
    active_version: PolicyVersion
    published: bool
    """Whether this call published `active_version`."""
    elapsed_ms: float


@dataclass(frozen=True, eq=False)
class Acted:
    """An action, and what chose it."""

    action: FloatArray
    """[action_dim] In environment units, within the bounds."""
    policy_version: int
    """To be returned with the transition; 0: none chose it, an action is held."""
    weights_hash: str
    """Empty where no version acted."""
    ood_percentile: float | None = None
    """Of the newest model context, where it has one (`ModelContext.ood_percentile`)."""
    fallback: Fallback | None = None
    """What answered in the place of the active version, and why."""
    limited: bool = False
    """Whether the session's limits changed the action."""
