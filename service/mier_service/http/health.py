"""Liveness, readiness and metrics over HTTP; grpc.health.v1 says the same (`grpc/servicer.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Response
from pydantic import Field

from mier_service.values import Value
from mier_service.watching.metrics import Metrics
from mier_service.watching.monitor import Monitor


class Alive(Value):
    """The process answers."""

    status: str = Field(examples=["alive"])


class CheckValue(Value):
    """One thing that must hold for the service to be ready."""

    name: str = Field(
        description="store: it can be written. checkpoint: at least one is loaded, its hashes verified. warm-up: their "
        "policies have acted once.",
        examples=["store"],
    )
    holds: bool = Field(description="Whether it did at the last look.")
    detail: str = Field(description="What is wrong, also while it holds. Empty: nothing.", examples=[""])


class Health(Value):
    """Whether calls are served."""

    status: str = Field(
        description="ready, or why not: starting, draining, no store, no checkpoint, no warm-up.", examples=["ready"]
    )
    checkpoints: list[str] = Field(description="Names of the checkpoints there are.")
    sessions: int | None = Field(description="Sessions stored at the last look; null if the store did not answer.")
    checks: list[CheckValue] = Field(description="What readiness rests on.")


def build_health(monitor: Monitor, metrics: Metrics, checkpoint_names: Callable[[], list[str]]) -> APIRouter:
    """Routes that are answered even under load and while draining."""
    router = APIRouter(tags=["health"])

    def check(response: Response) -> Health:
        if not monitor.ready:
            response.status_code = 503
        return Health(
            status=monitor.status,
            checkpoints=checkpoint_names(),
            sessions=monitor.sessions,
            checks=[CheckValue(name=c.name, holds=c.holds, detail=c.detail) for c in monitor.checks],
        )

    unready = {503: {"description": "Calls are not served now.", "model": Health}}

    @router.get("/livez")
    async def livez() -> Alive:
        """200 as long as the process answers."""
        return Alive(status="alive")

    @router.get("/readyz", responses=unready)  # type: ignore[arg-type]
    async def readyz(response: Response) -> Health:
        """200 while calls are served and all checks hold; 503 while starting or draining, or where one does not."""
        return check(response)

    @router.get("/healthz", responses=unready)  # type: ignore[arg-type]
    async def healthz(response: Response) -> Health:
        """The same as /readyz."""
        return check(response)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus."}},
    )
    async def metrics_text() -> Response:
        """Prometheus metrics."""
        return Response(await asyncio.to_thread(metrics.text), media_type=metrics.content_type)

    return router
