"""Acting over HTTP: the routes, and how an action is told. What comes at control rate takes `http/short_way.py`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json
from starlette.types import Scope

from mier_proto import convert
from mier_service.access.guarded import GuardedCore
from mier_service.acting.acting import ActCall, Action
from mier_service.acting.budget import MAX_BUDGET_MS, Budget
from mier_service.errors import ServiceError, invalid
from mier_service.http.bodies import (
    BINARY,
    JSON,
    ActBatchBody,
    ActBatchReply,
    ActBody,
    ActReply,
    media_type,
    read_json,
    request_body,
)
from mier_service.http.parameters import QueryIndex, QuerySession, refusals, required
from mier_service.offload import BoundedPool
from mier_service.values import MAX_SEED
from mier_service.watching.loop_watch import LoopWatch

QueryBudget = Annotated[float | None, Query(gt=0, le=MAX_BUDGET_MS, description="For a binary body only.")]
QueryTime = Annotated[int | None, Query(ge=0, lt=MAX_SEED, description="For a binary body only.")]
QueryFlag = Annotated[bool, Query(description="For a binary body only.")]

_OBSERVATION = (
    "The observation, raw little-endian float32 [observation_dim]. session_id, deterministic, episode and step "
    "are query parameters, and so are budget_ms and observed_at_unix_us. With Accept: application/octet-stream the "
    "reply is the raw action, and the rest is in the headers Mier-Policy-Version, Mier-Weights-Hash, Mier-Limited "
    "(true or false) and, where a fallback answered, Mier-Fallback and Mier-Fallback-Reason."
)
_JSON, _BINARY = JSON.encode(), BINARY.encode()

Headers = list[tuple[bytes, bytes]]


def add_acting(router: APIRouter, core: GuardedCore, pool: BoundedPool, watch: LoopWatch) -> None:
    """The framework's routes."""
    tags: list[str | Enum] = ["acting"]

    @router.post(
        "/act",
        tags=tags,
        response_model=ActReply,
        openapi_extra=request_body((JSON, ActBody), (BINARY, _OBSERVATION)),
        responses=refusals(404, 409, 415),
    )
    async def act(
        request: Request,
        session_id: QuerySession = None,
        deterministic: QueryFlag = False,
        episode: QueryIndex = None,
        step: QueryIndex = None,
        budget_ms: QueryBudget = None,
        observed_at_unix_us: QueryTime = None,
    ) -> Response:
        """The action for one observation, by the session's active version; within the budget, if need be by the
        session's fallback."""
        received_s = received_at_s(request.scope)
        if media_type(request, (JSON, BINARY)) == JSON:
            call = (await read_json(request, ActBody, pool)).call(received_s)
        else:
            observation = observation_of(await request.body())
            session = str(required(session_id=session_id)["session_id"])
            budget = None if budget_ms is None else Budget.of(received_s, budget_ms)
            call = ActCall(session, observation, deterministic, episode, step, budget, observed_at_unix_us)
        if call.budget is not None:
            watch.want()
        body, headers = answer(await core.acting.act(call), BINARY in request.headers.get("accept", ""))
        return Response(body, 200, {name.decode(): value.decode() for name, value in headers})

    @router.post(
        "/act/batch",
        tags=tags,
        response_model=ActBatchReply,
        openapi_extra=request_body((JSON, ActBatchBody)),
        responses=refusals(415),
    )
    async def act_batch(request: Request) -> Response:
        """Many sessions' actions in one message; one that is refused does not spoil the others."""
        media_type(request, (JSON,))
        body = await read_json(request, ActBatchBody, pool)
        received_s = received_at_s(request.scope)
        calls = [item.call(received_s) for item in body.requests]
        if any(call.budget is not None for call in calls):
            watch.want()
        outcomes = await core.acting.act_batch([*calls])
        return Response(to_json({"outcomes": [_outcome(outcome) for outcome in outcomes]}), 200, media_type=JSON)


def answer(action: Action, binary: bool) -> tuple[bytes, Headers]:
    """Body and headers, but for its length."""
    if not binary:
        return to_json(_reply(action)), [(b"content-type", _JSON)]
    headers = [
        (b"content-type", _BINARY),
        (b"mier-policy-version", str(action.policy_version).encode()),
        (b"mier-weights-hash", action.weights_hash.encode()),
        (b"mier-limited", b"true" if action.limited else b"false"),
    ]
    if action.ood_percentile is not None:
        headers.append((b"mier-ood-percentile", str(action.ood_percentile).encode()))
    if action.fallback is not None:
        headers.append((b"mier-fallback", action.fallback.kind.value.encode()))
        headers.append((b"mier-fallback-reason", action.fallback.reason.value.encode()))
    return action.action.astype("<f4", copy=False).tobytes(), headers


def _reply(action: Action) -> dict[str, Any]:
    """An `ActReply`."""
    return {
        "action": action.action.tolist(),
        "policy_version": action.policy_version,
        "weights_hash": action.weights_hash,
        "ood_percentile": action.ood_percentile,
        "fallback": None if action.fallback is None else action.fallback.model_dump(mode="json"),
        "limited": action.limited,
    }


def _outcome(outcome: Action | ServiceError) -> dict[str, Any]:
    """An `ActOutcome`."""
    if isinstance(outcome, ServiceError):
        return {"response": None, "error": {"reason": outcome.reason.value, "detail": outcome.detail}}
    return {"response": _reply(outcome), "error": None}


def received_at_s(scope: Scope) -> float:
    """By `time.monotonic`."""
    received_s: float = scope["mier.received_s"]
    return received_s


def observation_of(data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    if len(data) % 4:
        raise invalid("observation", f"observation: expected 4 bytes for each value, got {len(data)} bytes")
    try:
        return convert.decode_raw(data, "observation", (len(data) // 4,))
    except ValueError as error:
        raise invalid("observation", str(error)) from None
