"""Every route and every gRPC method there is, with a request that succeeds and the scope that it needs.

What there is comes from the application's own routes and from the service's descriptor. What it needs is written here,
apart from the service's own table, so that the two check each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import FastAPI
from google.protobuf.message import Message

from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_service.access.keys import Scope
from mier_service.http.app import build_app
from mier_service.http.health import build_health
from mier_service.http.inference import build_inference
from mier_service.http.routes import build_router
from tests.contract import tiny
from tests.contract.conftest import REWARD
from tests.contract.helpers import OBSERVATION, batch

SERVICE = pb.DESCRIPTOR.services_by_name["AdaptationService"]
STEPS = 40


@dataclass(frozen=True)
class Ids:
    """What calls are about: a session with STEPS transitions and two versions, and its operation, which is final."""

    session: str
    operation: str


@dataclass(frozen=True)
class HttpCall:
    """A request that succeeds; `scope` None: open to anybody."""

    scope: Scope | None
    body: Callable[[Ids], Mapping[str, Any]] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    whole_refusal: bool = True
    """Whether a key of another session is refused; False: the reply leaves out what is not its business."""


def _transitions(ids: Ids) -> dict[str, Any]:
    rows = {name: array.tolist() for name, array in tiny.arrays(STEPS, 3).items()}
    return {"session_id": ids.session, "episode": 0, "first_step": 0, "policy_version": 1, **rows}


def _act(ids: Ids) -> dict[str, Any]:
    return {"session_id": ids.session, "observation": OBSERVATION.tolist(), "deterministic": True}


def _infer(ids: Ids) -> dict[str, Any]:
    tensor = {"name": "observation", "datatype": "FP32", "shape": [1, 4], "data": OBSERVATION.tolist()}
    return {"inputs": [tensor]}


HTTP = {
    "GET /openapi.json": HttpCall(None),
    "GET /docs": HttpCall(None),
    "GET /docs/oauth2-redirect": HttpCall(None),
    "GET /livez": HttpCall(None),
    "GET /readyz": HttpCall(None),
    "GET /healthz": HttpCall(None),
    "GET /metrics": HttpCall(None),
    "POST /sessions": HttpCall(Scope.ADAPT, lambda ids: {"checkpoint": REWARD}),
    "GET /sessions": HttpCall(Scope.ACT, whole_refusal=False),
    "GET /sessions/{session_id}": HttpCall(Scope.ACT),
    "DELETE /sessions/{session_id}": HttpCall(Scope.ADMIN),
    "POST /sessions/{session_id}/pause": HttpCall(Scope.ADAPT),
    "POST /sessions/{session_id}/mode": HttpCall(Scope.ADAPT, lambda ids: {"mode": "context"}),
    "POST /sessions/{session_id}/resume": HttpCall(Scope.ADAPT),
    "GET /sessions/{session_id}/versions": HttpCall(Scope.ACT),
    "POST /sessions/{session_id}/promote": HttpCall(Scope.ADMIN, lambda ids: {"version": 1, "reason": "r"}),
    "POST /sessions/{session_id}/rollback": HttpCall(Scope.ADMIN, lambda ids: {"reason": "r"}),
    "POST /sessions/{session_id}/pin": HttpCall(Scope.ADMIN, lambda ids: {"reason": "r"}),
    "POST /sessions/{session_id}/unpin": HttpCall(Scope.ADMIN, lambda ids: {"reason": "r"}),
    "POST /sessions/{session_id}/move": HttpCall(Scope.ADMIN, lambda ids: {"checkpoint": REWARD, "reason": "r"}),
    "GET /sessions/{session_id}/promotions": HttpCall(Scope.ACT),
    "GET /sessions/{session_id}/bundle": HttpCall(Scope.ACT),
    "POST /adapt": HttpCall(Scope.ADAPT, lambda ids: {"session_id": ids.session}),
    "POST /finetune": HttpCall(Scope.ADAPT, lambda ids: {"session_id": ids.session, "updates": 20}),
    "GET /operations/{operation_id}": HttpCall(Scope.ADAPT),
    "POST /operations/{operation_id}/cancel": HttpCall(Scope.ADAPT),
    "GET /operations/{operation_id}/events": HttpCall(Scope.ADAPT),
    "POST /transitions": HttpCall(Scope.ADAPT, _transitions),
    "GET /sessions/{session_id}/transitions": HttpCall(Scope.ACT),
    "POST /act": HttpCall(Scope.ACT, _act),
    "GET /v2": HttpCall(None),
    "GET /v2/health/live": HttpCall(None),
    "GET /v2/health/ready": HttpCall(None),
    "GET /v2/models/{session_id}": HttpCall(Scope.ACT),
    "GET /v2/models/{session_id}/ready": HttpCall(Scope.ACT),
    "POST /v2/models/{session_id}/infer": HttpCall(Scope.ACT, _infer),
    "POST /act/batch": HttpCall(Scope.ACT, lambda ids: {"requests": [_act(ids)]}, whole_refusal=False),
}
"""By method and path at the root; those under /v1 are the same calls."""


@dataclass(frozen=True)
class GrpcCall:
    """Messages that succeed; streams of requests have one."""

    scope: Scope
    request: Callable[[Ids], Message]
    whole_refusal: bool = True
    """As for HTTP; a stream of acts answers each request by itself."""


def _batch(ids: Ids) -> pb.SubmitTransitionsRequest:
    steps = batch(STEPS)
    return pb.SubmitTransitionsRequest(
        session_id=ids.session,
        observation=encode(steps.observation),
        action=encode(steps.action),
        reward=encode(steps.reward),
        next_observation=encode(steps.next_observation),
        policy_version=[1],
    )


def _question(ids: Ids) -> pb.ActRequest:
    return pb.ActRequest(session_id=ids.session, observation=encode(OBSERVATION), deterministic=True)


GRPC = {
    "CreateSession": GrpcCall(Scope.ADAPT, lambda ids: pb.CreateSessionRequest(checkpoint=REWARD)),
    "GetSession": GrpcCall(Scope.ACT, lambda ids: pb.GetSessionRequest(session_id=ids.session)),
    "ListSessions": GrpcCall(Scope.ACT, lambda ids: pb.ListSessionsRequest(), whole_refusal=False),
    "DeleteSession": GrpcCall(Scope.ADMIN, lambda ids: pb.DeleteSessionRequest(session_id=ids.session)),
    "SetSessionMode": GrpcCall(
        Scope.ADAPT, lambda ids: pb.SetSessionModeRequest(session_id=ids.session, mode=pb.SESSION_MODE_CONTEXT)
    ),
    "PauseSession": GrpcCall(Scope.ADAPT, lambda ids: pb.PauseSessionRequest(session_id=ids.session)),
    "ResumeSession": GrpcCall(Scope.ADAPT, lambda ids: pb.ResumeSessionRequest(session_id=ids.session)),
    "ListVersions": GrpcCall(Scope.ACT, lambda ids: pb.ListVersionsRequest(session_id=ids.session)),
    "PromoteVersion": GrpcCall(
        Scope.ADMIN, lambda ids: pb.PromoteVersionRequest(session_id=ids.session, version=1, reason="r")
    ),
    "RollbackVersion": GrpcCall(Scope.ADMIN, lambda ids: pb.RollbackVersionRequest(session_id=ids.session, reason="r")),
    "PinVersion": GrpcCall(Scope.ADMIN, lambda ids: pb.PinVersionRequest(session_id=ids.session, reason="r")),
    "UnpinVersion": GrpcCall(Scope.ADMIN, lambda ids: pb.UnpinVersionRequest(session_id=ids.session, reason="r")),
    "MoveSession": GrpcCall(
        Scope.ADMIN, lambda ids: pb.MoveSessionRequest(session_id=ids.session, checkpoint=REWARD, reason="r")
    ),
    "ListPromotions": GrpcCall(Scope.ACT, lambda ids: pb.ListPromotionsRequest(session_id=ids.session)),
    "GetBundle": GrpcCall(Scope.ACT, lambda ids: pb.GetBundleRequest(session_id=ids.session)),
    "SubmitTransitions": GrpcCall(Scope.ADAPT, _batch),
    "SubmitTransitionsStream": GrpcCall(Scope.ADAPT, lambda ids: pb.SubmitTransitionsStreamRequest(batch=_batch(ids))),
    "ListTransitions": GrpcCall(Scope.ACT, lambda ids: pb.ListTransitionsRequest(session_id=ids.session)),
    "Adapt": GrpcCall(Scope.ADAPT, lambda ids: pb.AdaptRequest(session_id=ids.session)),
    "FineTune": GrpcCall(Scope.ADAPT, lambda ids: pb.FineTuneRequest(session_id=ids.session, updates=20)),
    "GetOperation": GrpcCall(Scope.ADAPT, lambda ids: pb.GetOperationRequest(operation_id=ids.operation)),
    "CancelOperation": GrpcCall(Scope.ADAPT, lambda ids: pb.CancelOperationRequest(operation_id=ids.operation)),
    "WatchOperation": GrpcCall(Scope.ADAPT, lambda ids: pb.WatchOperationRequest(operation_id=ids.operation)),
    "Act": GrpcCall(Scope.ACT, _question),
    "ActStream": GrpcCall(Scope.ACT, lambda ids: pb.ActStreamRequest(request=_question(ids)), whole_refusal=False),
    "ActBatch": GrpcCall(Scope.ACT, lambda ids: pb.ActBatchRequest(requests=[_question(ids)]), whole_refusal=False),
}


def whole_app(keys_required: bool) -> FastAPI:
    """All routes, with nothing behind them: what the document and the tables are made of."""
    nothing = cast(Any, None)
    calls, health = build_router(nothing, nothing, nothing), build_health(nothing, nothing, nothing)
    return build_app(calls, health, build_inference(nothing, nothing, nothing), keys_required)


def http_routes() -> list[str]:
    """`METHOD /path` of everything that the application serves. HEAD goes where GET goes."""
    app = whole_app(keys_required=False)
    found = sorted(f"{method} {path}" for path, methods in _routes(app.routes) for method in methods - {"HEAD"})
    assert {path for path, _ in _routes(app.routes)} >= set(app.openapi()["paths"]), "FastAPI nests routes differently"
    return found


def _routes(nodes: Any) -> Iterator[tuple[str, set[str]]]:
    """FastAPI keeps a router that was included as a node of its own, which knows its routes with their prefix."""
    for node in nodes:
        if hasattr(node, "effective_candidates"):
            yield from _routes(node.effective_candidates())
        else:
            yield node.path, set(node.methods)


def grpc_methods() -> list[str]:
    return [method.name for method in SERVICE.methods]
