"""The HTTP routes of lineage by hand: decode -> core -> encode."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from fastapi import APIRouter, Request

from mier_service.access.guarded import GuardedCore
from mier_service.http.bodies import (
    JSON,
    Body,
    MoveBody,
    PinBody,
    PromoteBody,
    RollbackBody,
    UnpinBody,
    media_type,
    read_json,
    request_body,
)
from mier_service.http.parameters import Key, PageSize, PageToken, refusals
from mier_service.offload import BoundedPool
from mier_service.values import PromotionPage, SessionValue

B = TypeVar("B", bound=Body)


def add_lineage(router: APIRouter, core: GuardedCore, pool: BoundedPool) -> None:
    """Adds them beside the other calls."""
    tags: list[str | Enum] = ["lineage"]

    async def read(request: Request, body_type: type[B]) -> B:
        media_type(request, (JSON,))
        return await read_json(request, body_type, pool)

    @router.post(
        "/sessions/{session_id}/promote",
        tags=tags,
        openapi_extra=request_body((JSON, PromoteBody)),
        responses=refusals(404, 409, 415),
    )
    async def promote_version(session_id: str, request: Request, key: Key = "") -> SessionValue:
        """Makes a version of the session act, in one step; refused while a version is pinned."""
        body = await read(request, PromoteBody)
        return await core.lineage.promote(session_id, body.version, body.reason, key)

    @router.post(
        "/sessions/{session_id}/rollback",
        tags=tags,
        openapi_extra=request_body((JSON, RollbackBody)),
        responses=refusals(404, 409, 415),
    )
    async def rollback_version(session_id: str, request: Request, key: Key = "") -> SessionValue:
        """Makes act what acted before the active version did; again: what acted before that."""
        body = await read(request, RollbackBody)
        return await core.lineage.roll_back(session_id, body.reason, key)

    @router.post(
        "/sessions/{session_id}/pin",
        tags=tags,
        openapi_extra=request_body((JSON, PinBody)),
        responses=refusals(404, 409, 415),
    )
    async def pin_version(session_id: str, request: Request, key: Key = "") -> SessionValue:
        """Makes a version act and keeps it: what later fine-tunes publish does not act, nor does a new context."""
        body = await read(request, PinBody)
        return await core.lineage.pin(session_id, body.version, body.reason, key)

    @router.post(
        "/sessions/{session_id}/unpin",
        tags=tags,
        openapi_extra=request_body((JSON, UnpinBody)),
        responses=refusals(404, 409, 415),
    )
    async def unpin_version(session_id: str, request: Request, key: Key = "") -> SessionValue:
        """Lets what is published next act; until then the active version stays."""
        body = await read(request, UnpinBody)
        return await core.lineage.unpin(session_id, body.reason, key)

    @router.post(
        "/sessions/{session_id}/move",
        tags=tags,
        openapi_extra=request_body((JSON, MoveBody)),
        responses=refusals(404, 409, 415),
    )
    async def move_session(session_id: str, request: Request, key: Key = "") -> SessionValue:
        """Takes the session to another checkpoint of the same environment, with its transitions and lineage."""
        body = await read(request, MoveBody)
        return await core.moving.move(session_id, body.checkpoint, body.reason, key)

    @router.get("/sessions/{session_id}/promotions", tags=tags, responses=refusals(404))
    async def list_promotions(session_id: str, page_size: PageSize = 0, page_token: PageToken = "") -> PromotionPage:
        """Which version acted, since when, by whom and why; oldest first."""
        return await core.lineage.promotions(session_id, page_size, page_token)
