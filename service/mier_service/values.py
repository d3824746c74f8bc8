"""The values that use cases return, with their meaning: the vocabulary shared by store, core and transports.

They are frozen. HTTP sends them as they are (so their fields carry the documentation that OpenAPI shows); gRPC
maps them one to one to the messages of the contract, which have the same names.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_SEED = 2**53
"""Seeds lie below it, so that JSON carries them exactly."""
MAX_INDEX = 2**31
"""Episodes and steps lie below it."""
MAX_COUNT = 2**31
"""Updates and windows lie below it."""
MAX_SHADOW_ACTS = 100_000
EXAMPLE_ID = "0192f3a8c0de4bd0b6f4f3c6a1e2d3f4"
EXAMPLE_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 2.0 is the integer 2. (True is no number.)"""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""On integers that callers send; the last annotation, so that bounds show in the schema."""
Context = Annotated[list[float], Field(description="Latent vector. [context_dim]", examples=[[0.1, -0.2, 0.0]])]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=[EXAMPLE_HASH])]


class Value(BaseModel):
    """Frozen, closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Given(Value):
    """What callers send: no value is taken for one of another type."""

    model_config = ConfigDict(strict=True)


class VariesValue(StrEnum):
    """What varies from task to task."""

    REWARD = "reward"
    DYNAMICS = "dynamics"


class HealthyRangeValue(Given):
    """An observation entry leaving this range ends the episode (a fall)."""

    index: Annotated[int, Field(ge=0), WHOLE] = Field(description="Position in the observation.", examples=[0])
    low: float = Field(description="Lowest healthy value, in that entry's unit.", examples=[0.8])
    high: float = Field(description="Highest healthy value, in that entry's unit.", examples=[2.0])


class EnvironmentValue(Value):
    """The environment a checkpoint was trained for: sizes, order, bounds, time."""

    id: str = Field(description="Name of the family of tasks.", examples=["cheetah-vel-ood"])
    observation_dim: int = Field(description="Entries of an observation.", examples=[20])
    action_dim: int = Field(description="Entries of an action.", examples=[6])
    observation_names: list[str] = Field(description="Order of an observation. [observation_dim]")
    action_names: list[str] = Field(description="Order of an action. [action_dim]")
    action_low: list[float] = Field(description="Lowest legal action, environment units. [action_dim]")
    action_high: list[float] = Field(description="Highest legal action, environment units. [action_dim]")
    dt_s: float = Field(description="Time between two actions, in seconds.", examples=[0.05])
    horizon_steps: int = Field(description="Steps after which an episode is truncated.", examples=[200])
    varies: VariesValue = Field(description="What varies from task to task.")
    healthy_ranges: list[HealthyRangeValue] = Field(
        description="Entries whose leaving a range terminates the episode; empty: episodes are only truncated."
    )
    action_max_change: list[float] = Field(
        default=[],
        description="Largest change of each action entry from one step of an episode to the next, environment units. "
        "[action_dim]; empty: not limited.",
    )


class WindowValue(Given):
    """Which of the session's transitions count: at most one field; none means all."""

    all: bool | None = Field(default=None, description="True: all transitions. (False is not legal.)", examples=[True])
    last_steps: Annotated[int, Field(ge=1, lt=MAX_COUNT), WHOLE] | None = Field(
        default=None, description="The newest so many, in the order of storing.", examples=[400]
    )
    from_episode: Annotated[int, Field(ge=0, lt=MAX_INDEX), WHOLE] | None = Field(
        default=None, description="Those of this episode number and higher.", examples=[2]
    )


Limits = Annotated[list[float], Field(max_length=10_000)]


class ActionLimitsValue(Given):
    """What a session's actions keep to beyond its environment's own bounds; only ever tighter than those."""

    low: Limits | None = Field(
        default=None, description="Lowest action. [action_dim]; null: the environment's.", examples=[[-0.5, -0.5]]
    )
    high: Limits | None = Field(
        default=None, description="Highest action. [action_dim]; null: the environment's.", examples=[[0.5, 0.5]]
    )
    max_change: Limits | None = Field(
        default=None,
        description="Largest change of each entry from one step of an episode to the next, above 0. [action_dim]; "
        "null: the environment's.",
        examples=[[0.1, 0.1]],
    )


class FallbackKind(StrEnum):
    """What answers where an answer would be late; one that cannot gives way to the next of this order."""

    INCUMBENT = "incumbent"
    """The policy of the session that is in memory already."""
    BASE_POLICY = "base_policy"
    """Version 1: the checkpoint's own policy under its prior context."""
    HOLD_LAST = "hold_last"
    HOLD_ZERO = "hold_zero"


class FallbackReason(StrEnum):
    """Why a fallback answered."""

    LOADING = "loading"
    """What should act was still being read when the budget ended."""
    BUSY = "busy"
    """The budget was used up before the policy was asked, or by the time it had answered."""
    UNAVAILABLE = "unavailable"
    """What should act cannot be read now."""


class FallbackValue(Value):
    """An answer in the place of another."""

    kind: FallbackKind = Field(description="What answered; the declared fallback, or the next that could.")
    reason: FallbackReason = Field(
        description="Why. loading: what should act was still being read; busy: the budget was used up before the "
        "policy had answered; unavailable: what should act cannot be read."
    )


class ShadowRule(Given):
    """What a candidate has to go through before it acts: on live observations it chooses, too, and nothing of that is
    sent to the robot."""

    acts: Annotated[int, Field(ge=1, le=MAX_SHADOW_ACTS), WHOLE] = Field(
        description="Acts of the session that it has to be compared on.", examples=[1000]
    )
    max_difference: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Largest difference in any entry of any action, as a share of that entry's range: one beyond it "
        "rejects the candidate; null: the differences are recorded only.",
        examples=[0.5],
    )


class ActingRules(Given):
    """What a session may declare of acting when it is created."""

    fallback: FallbackKind | None = Field(
        default=None,
        description="What answers where an answer would be late; null: nothing, it is refused.",
        examples=["hold_last"],
    )
    action_limits: ActionLimitsValue | None = Field(
        default=None, description="Tighter limits than the environment's; one that is wider is refused."
    )
    max_observation_age_ms: float | None = Field(
        default=None,
        gt=0.0,
        le=3_600_000.0,
        description="Age above which an observation is refused, in milliseconds. With it every act states "
        "observed_at_unix_us.",
        examples=[100.0],
    )
    shadow: ShadowRule | None = Field(
        default=None, description="Shadow that candidates have to act in before they act; null: none."
    )


class SessionState(StrEnum):
    """Whether a session learns."""

    ACTIVE = "active"
    PAUSED = "paused"


OOD_PERCENTILE = (
    "Where the task lies among tasks of the training distribution, by how strange they look: 0 to 100; from 95 on it "
    "counts as out of distribution. Null for the prior, and where the checkpoint has nothing to compare with."
)


class SessionMode(StrEnum):
    """Whether a session adapts by itself: `off`: not at all; `context`: its context follows the transitions as they
    come; `auto`: and fine-tunes start by themselves where a context alone will not do."""

    OFF = "off"
    CONTEXT = "context"
    AUTO = "auto"


class ModelContextValue(Value):
    """What adaptation inferred about the task; apart from the policy context, which a version pins."""

    number: int = Field(description="0 is the checkpoint's prior; each adaptation adds 1.", examples=[1])
    values: Context
    heldout_nll_before: float | None = Field(
        default=None, description="Negative log likelihood (nats per value) of held-out transitions under the prior."
    )
    heldout_nll_after: float | None = Field(default=None, description="The same under this context.")
    ood_score: float | None = Field(
        default=None, description="How unlike the training tasks this one is: 0 is typical, larger is stranger."
    )
    transitions_used: int = Field(default=0, description="Transitions that the adaptation used.", examples=[400])
    window: WindowValue | None = Field(default=None, description="The window they were taken from; null for the prior.")
    create_time: datetime = Field(description="When it was inferred (UTC).")
    ood_percentile: float | None = Field(default=None, description=OOD_PERCENTILE, examples=[42.0])


class SessionValue(Value):
    """One controlled system with its task."""

    id: str = Field(description="Chosen by the service.", examples=[EXAMPLE_ID])
    checkpoint: str = Field(description="Name of the checkpoint.", examples=["cheetah-vel-ood"])
    checkpoint_hash: Sha256 = Field(description="SHA-256 of the checkpoint's manifest: its identity.")
    environment: EnvironmentValue = Field(description="What observations and actions must fit.")
    seed: int = Field(description="Seed of the exploration noise.", examples=[0])
    state: SessionState = Field(description="Whether it learns.")
    active_version: int = Field(description="Number of the version that acts now; from 1.", examples=[1])
    model_context: ModelContextValue = Field(description="The newest model context.")
    transitions_count: int = Field(description="Transitions stored, each step once.", examples=[400])
    create_time: datetime = Field(description="When it was created (UTC).")
    pinned: bool = Field(default=False, description="True: the active version stays until it is unpinned.")
    mode: SessionMode = Field(default=SessionMode.OFF, description="Whether it adapts by itself.")
    task_number: int = Field(default=1, description="1, and 1 more for each change of the task.", examples=[1])
    task_start: int = Field(
        default=0, description="So many of its transitions, the first stored, are of earlier tasks.", examples=[0]
    )
    fallback: FallbackKind | None = Field(
        default=None, description="What answers where an answer would be late; null: nothing, it is refused."
    )
    action_limits: ActionLimitsValue | None = Field(
        default=None, description="As they were declared; null: the environment's own bounds and rates alone."
    )
    max_observation_age_ms: float | None = Field(
        default=None,
        description="Age above which an observation is refused, in milliseconds; null: none is too old.",
        examples=[100.0],
    )
    shadow: ShadowRule | None = Field(
        default=None, description="Shadow that candidates have to act in before they act; null: none."
    )


class VersionOrigin(StrEnum):
    """What made a policy version."""

    CHECKPOINT = "checkpoint"
    ADAPT = "adapt"
    FINE_TUNE = "fine_tune"


class Promotion(StrEnum):
    """How a version was judged when it was published; `ungated`: not at all. Whether it acted, promotions tell.
    What has to act in shadow first is `insufficient_data` until it did, and `rejected` where it differed too much."""

    UNGATED = "ungated"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    INSUFFICIENT_DATA = "insufficient_data"


class GateValue(Value):
    """What the gate saw: imagined episodes of a fine-tuned candidate and of what acted, in the units of the reward."""

    incumbent_version: int = Field(description="The version that acted when it was judged.", examples=[2])
    reason: str = Field(description="What the verdict rests on, in words.")
    incumbent_return: float | None = Field(default=None, description="Mean imagined return of what acted.")
    candidate_return: float | None = Field(default=None, description="Mean imagined return of the candidate.")
    lowest_difference: float | None = Field(
        default=None,
        description="Lower 95% bound of candidate less incumbent, in the world that flatters the candidate least.",
    )
    highest_difference: float | None = Field(
        default=None, description="Upper 95% bound, in the world that flatters it most."
    )
    promote_above: float | None = Field(
        default=None, description="The candidate is promoted if the lower bound is above this (calibrated, at least 0)."
    )
    reject_below: float | None = Field(
        default=None, description="It is rejected if the upper bound is below this (calibrated, at most 0)."
    )
    starts: int | None = Field(default=None, description="Real first states that were played from.", examples=[32])
    steps: int | None = Field(default=None, description="Steps of an imagined episode.", examples=[200])


class ShadowState(StrEnum):
    """Where a candidate in shadow stands."""

    RUNNING = "running"
    """It acts in shadow."""
    PASSED = "passed"
    """It came to act."""
    REJECTED = "rejected"
    """It differed by more than the session allows, or had no finite action."""
    SUPERSEDED = "superseded"
    """Something else came to act, another candidate came, or the task changed."""


SHADOW_VERDICTS = (ShadowState.PASSED, ShadowState.REJECTED)


class ShadowValue(Value):
    """What a candidate would have done on live observations, beside what was done. Differences are shares of the
    action's range; of one act it is that of the entry that differs most."""

    state: ShadowState = Field(description="running, passed (it came to act), rejected, superseded.")
    acts: int = Field(description="Acts that were compared.", examples=[400])
    acts_wanted: int = Field(description="Acts that have to be.", examples=[1000])
    max_difference: float | None = Field(default=None, description="Above it the candidate is rejected; null: never.")
    incumbent_version: int = Field(description="The version that acted when it began.", examples=[2])
    mean_difference: float | None = Field(default=None, description="Over all acts; null: none was seen.")
    quantile_difference: float | None = Field(default=None, description="One act in twenty differs by more.")
    largest_difference: float | None = Field(
        default=None, description="In any act; null: none was seen, or the candidate had no finite action."
    )
    at_limit: float | None = Field(
        default=None, description="Share of acts in which an entry of the candidate's action was at a bound."
    )
    acting_at_limit: float | None = Field(default=None, description="The same of what was done.")
    reason: str = Field(default="", description="Why it ended; empty before.")


class ReturnsValue(Value):
    """Returns of whole episodes of the present task in which one version chose every step."""

    episodes: int = Field(description="How many there are; at least 1.", examples=[12])
    mean: float = Field(description="Their mean return, undiscounted, in the unit of the reward.", examples=[812.5])
    low: float | None = Field(default=None, description="Lower end of the mean's 95% interval; null for one episode.")
    high: float | None = Field(default=None, description="Upper end; null for one episode.")


class VersionValue(Value):
    """Immutable: weights with the policy context they act under, and where both came from."""

    number: int = Field(description="1, 2, 3, ... within the session.", examples=[2])
    parent: int = Field(description="The version it was made from; 0 for version 1.", examples=[1])
    weights_hash: Sha256 = Field(description="SHA-256 of the weights; shared weights share their hash.")
    policy_context: Context
    model_context_number: int = Field(description="The model context it was made with.", examples=[1])
    origin: VersionOrigin = Field(description="What made it.")
    promotion: Promotion = Field(description="How it was judged; ungated: not at all.")
    operation_id: str | None = Field(default=None, description="The fine-tune that made it; null otherwise.")
    checkpoint_hash: Sha256 = Field(description="The checkpoint it descends from.")
    transitions_used: int = Field(description="Transitions it learned from.", examples=[400])
    seed: int | None = Field(default=None, description="Seed of the fine-tune that made it; null otherwise.")
    configuration_json: str | None = Field(
        default=None, description="Settings of the fine-tune (relabelling included), a JSON object; null otherwise."
    )
    create_time: datetime = Field(description="When it was published (UTC).")
    checkpoint: str = Field(
        default="", description="Name of that checkpoint; empty in a reply that was kept from before it was recorded."
    )
    gate: GateValue | None = Field(default=None, description="What the gate saw; null where it did not judge.")
    shadow: ShadowValue | None = Field(
        default=None, description="What was seen of it in shadow, as of when versions are listed; null: nothing."
    )
    returns: ReturnsValue | None = Field(
        default=None,
        description="What robots reported of it, as of when versions are listed; null: no whole episode.",
    )


class PromotionKind(StrEnum):
    """What changed which version acts."""

    PUBLISH = "publish"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PIN = "pin"
    UNPIN = "unpin"
    MOVE = "move"


class PromotionRecordValue(Value):
    """One entry of the record of what acted: only ever added to."""

    kind: PromotionKind = Field(description="What was done.")
    from_version: int = Field(description="The version that acted before; 0: none.", examples=[3])
    to_version: int = Field(description="The version that acts from here on; a pin may leave it.", examples=[2])
    who: str = Field(
        description="Who did it: the id of the key that was used; anonymous where callers are not asked for one; "
        "service: an adaptation, a fine-tune, or (rollback) returns that fell.",
        examples=["anonymous"],
    )
    reason: str = Field(description="Why.", examples=["stumbles on turns"])
    create_time: datetime = Field(description="When (UTC).")


class AdaptationValue(Value):
    """What an adaptation found."""

    model_context: ModelContextValue = Field(description="The new model context.")
    active_version: VersionValue = Field(
        description="The version that acts now: a new one on shared weights, the same once fine-tuned or pinned."
    )
    published: bool = Field(description="True if this call published that version.")
    elapsed_ms: float = Field(description="Time of the computation, in milliseconds.", examples=[35.2])


class StoredValue(Value):
    """The steps are durable."""

    stored: int = Field(description="Steps that were new.", examples=[200])
    duplicates: int = Field(description="Steps stored already, with the same content.", examples=[0])
    transitions_count: int = Field(description="Transitions that the session holds now.", examples=[400])


class OperationState(StrEnum):
    """Where an operation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED)


class OperationErrorValue(Value):
    """Why an operation failed."""

    reason: str = Field(description="Stable name, as in problem types.", examples=["FINE_TUNE_FAILED"])
    detail: str = Field(description="What was expected, what came.")


class OperationValue(Value):
    """A background fine-tune."""

    id: str = Field(description="Chosen by the service.", examples=[EXAMPLE_ID])
    session_id: str = Field(description="The session that it is for.", examples=[EXAMPLE_ID])
    state: OperationState = Field(description="Where it stands.")
    cancel_requested: bool = Field(description="True once a cancel was asked for.")
    updates_done: int = Field(description="Gradient updates made so far.", examples=[250])
    updates_total: int = Field(description="Gradient updates to make in all.", examples=[4000])
    metrics: dict[str, float] | None = Field(
        default=None, description="The learning's newest metrics, by name; null before the first report."
    )
    seed: int = Field(description="Seed of all its randomness.", examples=[0])
    transitions_used: int = Field(description="Transitions it learns from.", examples=[400])
    start_version: int = Field(description="The version whose weights it starts from.", examples=[2])
    result_version: int = Field(description="The version it published; 0 before it succeeded.", examples=[3])
    error: OperationErrorValue | None = Field(default=None, description="Why it failed; null otherwise.")
    attempts: int = Field(
        description="Times a worker took it up; above 1 after a restart, or where others had their turn.", examples=[1]
    )
    create_time: datetime = Field(description="When it was asked for (UTC).")
    update_time: datetime = Field(description="When it last changed (UTC).")
    reason: str = Field(default="", description="Why the service began it by itself; empty where somebody asked.")


class SessionPage(Value):
    """A page of sessions, oldest first."""

    sessions: list[SessionValue]
    next_page_token: str = Field(description="Asks for the next page; empty on the last.", examples=[""])


class VersionPage(Value):
    """A page of versions, oldest first."""

    versions: list[VersionValue]
    next_page_token: str = Field(description="Asks for the next page; empty on the last.", examples=[""])


class PromotionPage(Value):
    """A page of the record of what acted, oldest first."""

    promotions: list[PromotionRecordValue]
    next_page_token: str = Field(description="Asks for the next page; empty on the last.", examples=[""])
