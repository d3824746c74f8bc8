"""What HTTP requests carry, and reading it: JSON checked strictly, or raw little-endian float32."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from starlette.requests import Request

from mier_service.acting.acting import ActCall
from mier_service.acting.budget import MAX_BUDGET_MS, Budget
from mier_service.acting.timely import MAX_BATCH
from mier_service.environments import ExpectedEnvironment
from mier_service.errors import Reason, ServiceError, invalid
from mier_service.http.problems import from_pydantic
from mier_service.learning.learning import MAX_UPDATES
from mier_service.offload import BoundedPool
from mier_service.sessions.lineage import MAX_REASON_CHARACTERS
from mier_service.sessions.recording import Submission
from mier_service.values import (
    EXAMPLE_HASH,
    EXAMPLE_ID,
    MAX_INDEX,
    MAX_SEED,
    OOD_PERCENTILE,
    WHOLE,
    ActingRules,
    FallbackValue,
    Given,
    SessionMode,
    Value,
    WindowValue,
)

JSON = "application/json"
BINARY = "application/octet-stream"
_PARSE_ON_LOOP_BYTES = 32 * 1024
_JSON_TYPE = re.compile(r"application/(json|[\w.+-]+\+json)", re.IGNORECASE)

SessionId = Annotated[str, Field(min_length=1, max_length=100, examples=[EXAMPLE_ID])]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Index = Annotated[int, Field(ge=0, lt=MAX_INDEX), WHOLE]
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED), WHOLE]
BudgetMs = Annotated[float, Field(gt=0.0, le=MAX_BUDGET_MS)]
UnixUs = Annotated[int, Field(ge=0, lt=MAX_SEED), WHOLE]
Vector = Annotated[list[float], Field(max_length=1_000_000)]
Version = Annotated[
    int, Field(ge=1, lt=MAX_INDEX, description="Number of a version of the session.", examples=[2]), WHOLE
]
Why = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_REASON_CHARACTERS,
        description="Why; kept in the record.",
        examples=["stumbles on turns"],
    ),
]
Rows = Annotated[list[Vector], Field(min_length=1, max_length=1_000_000)]


class Body(Given):
    """Closed: a misspelt field is an error, not a default."""


B = TypeVar("B", bound=Body)


class CreateSessionBody(Body, ActingRules):
    """Asks for a session."""

    checkpoint: Name = Field(description="Name of a checkpoint that the service holds.", examples=["cheetah-vel-ood"])
    expected_environment: ExpectedEnvironment | None = Field(
        default=None, description="Your own environment; refused, difference by difference, if it does not fit."
    )
    seed: Seed = Field(default=0, description="Seed of the exploration noise.")

    def rules(self) -> ActingRules:
        return ActingRules(
            fallback=self.fallback,
            action_limits=self.action_limits,
            max_observation_age_ms=self.max_observation_age_ms,
            shadow=self.shadow,
        )


class TransitionsBody(Body):
    """Consecutive steps of one episode: row i is step first_step + i."""

    session_id: SessionId
    episode: Index = Field(description="Number of the episode, chosen by you.", examples=[0])
    first_step: Index = Field(description="Step of the first row.", examples=[0])
    observation: Rows = Field(description="What was seen before acting. [n, observation_dim]")
    action: Rows = Field(description="What was done, environment units, within bounds. [n, action_dim]")
    reward: Vector = Field(description="Reward of each step. [n]")
    next_observation: Rows = Field(description="What was seen after acting, before a reset. [n, observation_dim]")
    terminated: list[bool] | None = Field(default=None, description="Ended the episode for good. [n]; null: none did.")
    truncated: list[bool] | None = Field(
        default=None, description="The last step for another reason. [n]; null: none was."
    )
    policy_version: Index | Annotated[list[Index], Field(min_length=1)] = Field(
        description="Version that chose each action; 0: none did. One number for all rows, or [n].", examples=[1]
    )

    def submission(self, key: str) -> Submission:
        """As arrays; the sizes are checked by the use case."""
        n = len(self.reward)
        version = self.policy_version if isinstance(self.policy_version, list) else [self.policy_version]
        return Submission(
            session_id=self.session_id,
            episode=self.episode,
            first_step=self.first_step,
            observation=_array(self.observation, "observation"),
            action=_array(self.action, "action"),
            reward=_array(self.reward, "reward"),
            next_observation=_array(self.next_observation, "next_observation"),
            terminated=_array(self.terminated if self.terminated is not None else [0.0] * n, "terminated"),
            truncated=_array(self.truncated if self.truncated is not None else [0.0] * n, "truncated"),
            policy_version=np.asarray(version, np.int64),
            key=key,
        )


class AdaptBody(Body):
    """Asks for context adaptation."""

    session_id: SessionId
    window: WindowValue = Field(default_factory=WindowValue, description="The transitions to use; left out: all.")


class FineTuneBody(Body):
    """Asks for a fine-tune."""

    session_id: SessionId
    updates: Annotated[int, Field(ge=1, le=MAX_UPDATES), WHOLE] | None = Field(
        default=None,
        description="Gradient updates to make; null: as the checkpoint says.",
        examples=[4000],
    )
    seed: Seed = Field(default=0, description="Seed of all its randomness.")


class PromoteBody(Body):
    """Asks that a version act."""

    version: Version
    reason: Why


class RollbackBody(Body):
    """Asks that what acted before act again."""

    reason: Why


class PinBody(Body):
    """Asks that a version act and stay."""

    version: Version | None = Field(default=None, description="Number of the version; null: the active one.")
    reason: Why


class UnpinBody(Body):
    """Asks that what is published next may act."""

    reason: Why


class MoveBody(Body):
    """Asks for another checkpoint under the session."""

    checkpoint: Name = Field(description="Name of a checkpoint of the same environment.", examples=["cheetah-vel-ood"])
    reason: Why


class ActBody(Body):
    """Asks for an action."""

    session_id: SessionId
    observation: Vector = Field(description="What is seen now. [observation_dim]")
    deterministic: bool = Field(
        default=False, description="True: the mean action. False: exploring, a function of (seed, episode, step)."
    )
    episode: Index | None = Field(default=None, description="Required when exploring.", examples=[0])
    step: Index | None = Field(default=None, description="Required when exploring.", examples=[0])
    budget_ms: BudgetMs | None = Field(
        default=None,
        description="Time within which the answer is needed, counted from the receipt of the request, in milliseconds. "
        "What would come later is replaced by the session's fallback, or refused (DEADLINE_EXCEEDED) if it has none. "
        "The smallest one of a batch is that of all of it.",
        examples=[20.0],
    )
    observed_at_unix_us: UnixUs | None = Field(
        default=None,
        description="When the observation was made, in microseconds since 1970 (UTC); required in sessions with "
        "max_observation_age_ms. One that is older, or as far in the future, is refused (OBSERVATION_TOO_OLD).",
    )
    previous_action: Vector | None = Field(
        default=None,
        description="What the robot did in the step before: what a limited rate counts from. [action_dim]; null: what "
        "the service answered for step - 1 of this episode, nothing before step 0.",
    )

    def call(self, received_s: float) -> ActCall:
        """`received_s`: when the request was received, by `time.monotonic`."""
        return ActCall(
            session_id=self.session_id,
            observation=_array(self.observation, "observation"),
            deterministic=self.deterministic,
            episode=self.episode,
            step=self.step,
            budget=None if self.budget_ms is None else Budget.of(received_s, self.budget_ms),
            observed_at_unix_us=self.observed_at_unix_us,
            previous_action=None if self.previous_action is None else _array(self.previous_action, "previous_action"),
        )


class ModeBody(Body):
    """Asks a session to adapt by itself, or not to."""

    mode: SessionMode = Field(description="off, context or auto.", examples=["auto"])


class ActBatchBody(Body):
    """Asks for many actions."""

    requests: list[ActBody] = Field(min_length=1, max_length=MAX_BATCH, description="Of any sessions.")


class ActReply(Value):
    """The action, and what chose it."""

    action: list[float] = Field(
        description="Environment units, within bounds and the session's limits. [action_dim]", examples=[[0.1, -0.4]]
    )
    policy_version: int = Field(
        description="Version that chose it; send it back with the transition. 0: none did, an action is held.",
        examples=[1],
    )
    weights_hash: str = Field(
        description="SHA-256 of that version's weights; empty where none acted.", examples=[EXAMPLE_HASH]
    )
    ood_percentile: float | None = Field(default=None, description=OOD_PERCENTILE, examples=[42.0])
    fallback: FallbackValue | None = Field(
        default=None,
        description="What answered in the place of the active version, and why; null: the active version did.",
    )
    limited: bool = Field(default=False, description="True: the session's limits changed the action.")


class OutcomeError(Value):
    """Why one request of a batch has no action."""

    reason: str = Field(examples=["SESSION_NOT_FOUND"])
    detail: str


class ActOutcome(Value):
    """Exactly one of the two is not null."""

    response: ActReply | None = None
    error: OutcomeError | None = None


class ActBatchReply(Value):
    """One outcome for each request, in order."""

    outcomes: list[ActOutcome]


BODIES: tuple[type[Body], ...] = (
    CreateSessionBody,
    TransitionsBody,
    AdaptBody,
    FineTuneBody,
    PromoteBody,
    RollbackBody,
    PinBody,
    UnpinBody,
    MoveBody,
    ActBody,
    ActBatchBody,
    ModeBody,
)


def media_type(request: Request, allowed: tuple[str, ...]) -> str:
    """Which of the allowed types the body is of."""
    given = request.headers.get("content-type", "").split(";")[0].strip()
    kind = JSON if _JSON_TYPE.fullmatch(given) else given.lower()
    if kind not in allowed:
        raise ServiceError(
            Reason.UNSUPPORTED_MEDIA_TYPE,
            f"expected Content-Type {' or '.join(allowed)}, got {given[:80]!r}",
        )
    return kind


async def read_json(request: Request, body_type: type[B], pool: BoundedPool) -> B:
    """The checked JSON body; what is large is parsed off the event loop."""
    data = await request.body()
    if len(data) <= _PARSE_ON_LOOP_BYTES:
        return parse(body_type, data)
    return await pool.run(parse, body_type, data)


def parse(body_type: type[B], data: bytes) -> B:
    try:
        return body_type.model_validate_json(data)
    except ValidationError as error:
        raise from_pydantic(error) from None


def request_body(*kinds: tuple[str, type[Body] | str]) -> dict[str, Any]:
    """The OpenAPI description of a body: a model for JSON, words for a binary one."""
    content: dict[str, Any] = {}
    for kind, what in kinds:
        if isinstance(what, str):
            content[kind] = {"schema": {"type": "string", "format": "binary", "description": what}}
        else:
            content[kind] = {"schema": {"$ref": f"#/components/schemas/{what.__name__}"}}
    return {"requestBody": {"required": True, "content": content}}


def _array(values: Any, name: str) -> npt.NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            return np.asarray(values, np.float32)
    except ValueError:
        lengths = sorted({len(row) for row in values})
        raise invalid(name, f"{name}: expected rows of one length, got lengths {lengths[:10]}") from None
