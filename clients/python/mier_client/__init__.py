"""Client of the MIER adaptation service: a robot's side of the contract, over HTTP or gRPC.

Needs neither torch nor mujoco. Start at `Client.connect`, or at `AsyncClient.connect` where an event loop runs.
"""

from mier_client.acting import Acting, AsyncActing
from mier_client.async_client import AsyncClient
from mier_client.client import Client
from mier_client.errors import (
    AccessDenied,
    Conflict,
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    MierError,
    NotFound,
    OperationFailed,
    Overloaded,
    Problem,
    QuotaExceeded,
    ServerFault,
    Unavailable,
)
from mier_client.policy import Policy
from mier_client.recorder import Recorder, Step
from mier_client.remote import RemotePolicy
from mier_client.retry import Retrier, RetryPolicy
from mier_client.security import Tls
from mier_client.surface import Timeouts
from mier_client.values import (
    Acted,
    Adapted,
    EnvironmentSpec,
    Fault,
    Gate,
    HealthyRange,
    ModelContext,
    Operation,
    OperationState,
    PolicyVersion,
    Promotion,
    PromotionKind,
    PromotionRecord,
    Session,
    SessionMode,
    SessionState,
    Submitted,
    Varies,
    VersionOrigin,
    Window,
)

__all__ = [
    "AccessDenied",
    "Acted",
    "Acting",
    "Adapted",
    "AsyncActing",
    "AsyncClient",
    "Client",
    "Conflict",
    "DeadlineExceeded",
    "EnvironmentSpec",
    "Fault",
    "FieldViolation",
    "Gate",
    "HealthyRange",
    "InvalidRequest",
    "MierError",
    "ModelContext",
    "NotFound",
    "Operation",
    "OperationFailed",
    "OperationState",
    "Overloaded",
    "Policy",
    "PolicyVersion",
    "Problem",
    "Promotion",
    "PromotionKind",
    "PromotionRecord",
    "QuotaExceeded",
    "Recorder",
    "RemotePolicy",
    "Retrier",
    "RetryPolicy",
    "ServerFault",
    "Session",
    "SessionMode",
    "SessionState",
    "Step",
    "Submitted",
    "Timeouts",
    "Tls",
    "Unavailable",
    "Varies",
    "VersionOrigin",
    "Window",
]
