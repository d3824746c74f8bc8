"""The HTTP routes: decode -> core -> encode. Refusals become problems elsewhere (`http/app.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import Enum

from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from mier_service.access.guarded import GuardedCore
from mier_service.errors import ServiceError
from mier_service.http.acting import add_acting
from mier_service.http.bodies import (
    BINARY,
    JSON,
    AdaptBody,
    CreateSessionBody,
    FineTuneBody,
    ModeBody,
    TransitionsBody,
    media_type,
    read_json,
    request_body,
)
from mier_service.http.bundles import add_bundles
from mier_service.http.lineage import add_lineage
from mier_service.http.parameters import Key, PageSize, PageToken, QueryIndex, QuerySession, refusals, required
from mier_service.http.problems import problem_json
from mier_service.http.recorded import add_recorded
from mier_service.offload import BoundedPool
from mier_service.values import (
    AdaptationValue,
    OperationValue,
    SessionPage,
    SessionValue,
    StoredValue,
    VersionPage,
)
from mier_service.watching.loop_watch import LoopWatch
from mier_service.watching.metrics import Metrics

_PING_EVERY_S = 15

_ROWS = (
    "Raw little-endian float32, row after row: observation [observation_dim], action [action_dim], reward, "
    "next_observation [observation_dim], terminated (0 or 1), truncated (0 or 1). session_id, episode, "
    "first_step and policy_version (one for all rows) are query parameters."
)
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["operation", "problem"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("OperationValue", "Problem")]
            },
        },
    },
}
"""One server-sent event."""


def build_router(
    core: GuardedCore,
    pool: BoundedPool,
    metrics: Metrics,
    watch: LoopWatch | None = None,
    watch_idle_s: float = 300.0,
) -> APIRouter:
    """All calls; mounted at the root and under /v1. A watch on which nothing happens for `watch_idle_s` is ended."""
    router = APIRouter()
    _add_sessions(router, core, pool)
    _add_learning(router, core, pool, watch_idle_s)
    _add_recording(router, core, pool, metrics)
    add_acting(router, core, pool, watch or LoopWatch())
    add_recorded(router, core, pool)
    add_lineage(router, core, pool)
    add_bundles(router, core)
    return router


def _add_sessions(router: APIRouter, core: GuardedCore, pool: BoundedPool) -> None:
    tags: list[str | Enum] = ["sessions"]

    @router.post(
        "/sessions",
        status_code=201,
        tags=tags,
        openapi_extra=request_body((JSON, CreateSessionBody)),
        responses=refusals(404, 409, 415),
    )
    async def create_session(request: Request, response: Response, key: Key = "") -> SessionValue:
        """Opens a session: version 1 is the checkpoint's weights with its prior context."""
        media_type(request, (JSON,))
        body = await read_json(request, CreateSessionBody, pool)
        session = await core.sessions.create(body.checkpoint, body.expected_environment, body.seed, body.rules(), key)
        response.headers["Location"] = f"{request.url.path.rstrip('/')}/{session.id}"
        return session

    @router.get("/sessions", tags=tags, responses=refusals())
    async def list_sessions(page_size: PageSize = 0, page_token: PageToken = "") -> SessionPage:
        """Sessions, oldest first."""
        return await core.sessions.list(page_size, page_token)

    @router.get("/sessions/{session_id}", tags=tags, responses=refusals(404))
    async def get_session(session_id: str) -> SessionValue:
        """One session."""
        return await core.sessions.get(session_id)

    @router.delete("/sessions/{session_id}", status_code=204, tags=tags, responses=refusals(404, 409))
    async def delete_session(session_id: str, key: Key = "") -> None:
        """Deletes a session with its transitions, versions and operations."""
        await core.sessions.delete(session_id, key)

    @router.post("/sessions/{session_id}/pause", tags=tags, responses=refusals(404, 409))
    async def pause_session(session_id: str, key: Key = "") -> SessionValue:
        """Freezes learning; acting and submitting go on."""
        return await core.sessions.pause(session_id, key)

    @router.post("/sessions/{session_id}/resume", tags=tags, responses=refusals(404, 409))
    async def resume_session(session_id: str, key: Key = "") -> SessionValue:
        """Lets learning go on."""
        return await core.sessions.resume(session_id, key)

    @router.post(
        "/sessions/{session_id}/mode",
        tags=tags,
        openapi_extra=request_body((JSON, ModeBody)),
        responses=refusals(404, 409, 415),
    )
    async def set_session_mode(session_id: str, request: Request, key: Key = "") -> SessionValue:
        """Whether the session adapts by itself, from the next transitions on."""
        media_type(request, (JSON,))
        body = await read_json(request, ModeBody, pool)
        return await core.sessions.set_mode(session_id, body.mode, key)

    @router.get("/sessions/{session_id}/versions", tags=tags, responses=refusals(404))
    async def list_versions(session_id: str, page_size: PageSize = 0, page_token: PageToken = "") -> VersionPage:
        """The session's policy versions, oldest first: their lineage."""
        return await core.sessions.versions(session_id, page_size, page_token)


def _add_learning(router: APIRouter, core: GuardedCore, pool: BoundedPool, watch_idle_s: float) -> None:
    tags: list[str | Enum] = ["learning"]

    @router.post(
        "/adapt",
        tags=tags,
        openapi_extra=request_body((JSON, AdaptBody)),
        responses=refusals(404, 409, 415),
    )
    async def adapt(request: Request, key: Key = "") -> AdaptationValue:
        """Infers the model context from the window's transitions, starting at the prior."""
        media_type(request, (JSON,))
        body = await read_json(request, AdaptBody, pool)
        return await core.learning.adapt(body.session_id, body.window, key)

    @router.post(
        "/finetune",
        status_code=202,
        tags=tags,
        openapi_extra=request_body((JSON, FineTuneBody)),
        responses=refusals(404, 409, 415),
    )
    async def fine_tune(request: Request, response: Response, key: Key = "") -> OperationValue:
        """Starts relabel-based fine-tuning in the background; the reply is what to watch."""
        media_type(request, (JSON,))
        body = await read_json(request, FineTuneBody, pool)
        operation = await core.learning.fine_tune(body.session_id, body.updates, body.seed, key)
        prefix = request.url.path.rstrip("/").removesuffix("/finetune")
        response.headers["Location"] = f"{prefix}/operations/{operation.id}"
        return operation

    @router.get("/operations/{operation_id}", tags=tags, responses=refusals(404))
    async def get_operation(operation_id: str) -> OperationValue:
        """One operation."""
        return await core.learning.operation(operation_id)

    @router.post("/operations/{operation_id}/cancel", tags=tags, responses=refusals(404, 409))
    async def cancel_operation(operation_id: str, key: Key = "") -> OperationValue:
        """Asks it to stop; it publishes nothing afterwards."""
        return await core.learning.cancel(operation_id, key)

    @router.get(
        "/operations/{operation_id}/events",
        tags=tags,
        response_class=EventSourceResponse,
        responses={
            200: {
                "description": "Server-sent events named `operation`, each with the operation as JSON, now and at "
                "each change; the final state is the last. An event named `problem`, with a problem document, "
                "ends the stream early; where nothing changes for minutes it just ends: ask again.",
                "content": {"text/event-stream": {"schema": _EVENT}},
            },
            **refusals(404),
        },
    )
    async def watch_operation(operation_id: str, request: Request) -> EventSourceResponse:
        """The operation's progress as server-sent events."""
        await core.learning.operation(operation_id)  # unknown ids are refused before the stream begins
        return EventSourceResponse(
            _events(core.learning.watch(operation_id), request.scope.get("mier.request_id", ""), watch_idle_s),
            ping=_PING_EVERY_S,
        )


async def _events(
    values: AsyncIterator[OperationValue], request_id: str, idle_s: float
) -> AsyncIterator[ServerSentEvent]:
    """Ends where nothing changes for `idle_s`: a reader that stands still cannot be told from one that reads."""
    try:
        while True:
            async with asyncio.timeout(idle_s):
                value = await anext(values)
            yield ServerSentEvent(value.model_dump_json(), event="operation")
    except (StopAsyncIteration, TimeoutError):
        return
    except ServiceError as error:
        yield ServerSentEvent(problem_json(error, request_id), event="problem")


def _add_recording(router: APIRouter, core: GuardedCore, pool: BoundedPool, metrics: Metrics) -> None:
    @router.post(
        "/transitions",
        tags=["recording"],
        openapi_extra=request_body((JSON, TransitionsBody), (BINARY, _ROWS)),
        responses=refusals(404, 409, 415),
    )
    async def submit_transitions(
        request: Request,
        session_id: QuerySession = None,
        episode: QueryIndex = None,
        first_step: QueryIndex = None,
        policy_version: QueryIndex = None,
        key: Key = "",
    ) -> StoredValue:
        """Appends consecutive steps of one episode; the reply says that they are durable."""
        if media_type(request, (JSON, BINARY)) == JSON:
            body = await read_json(request, TransitionsBody, pool)
            stored = await core.recording.submit(await pool.run(body.submission, key))
        else:
            given = required(
                session_id=session_id, episode=episode, first_step=first_step, policy_version=policy_version
            )
            stored = await core.recording.submit_rows(
                given["session_id"],
                await request.body(),
                given["episode"],
                given["first_step"],
                given["policy_version"],
                key,
            )
        metrics.stored(stored.stored)
        return stored
