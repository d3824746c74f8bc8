"""Liveness, readiness and metrics over HTTP; grpc.health.v1 says the same (see `grpc.py`)."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response
from pydantic import Field

from mier_service import store_sessions
from mier_service.errors import ServiceError
from mier_service.lifecycle import Lifecycle
from mier_service.metrics import Metrics
from mier_service.offload import BoundedPool
from mier_service.storage import Storage
from mier_service.values import Value


class Alive(Value):
    """The process answers."""

    status: str = Field(examples=["alive"])


class Health(Value):
    """Whether calls are served."""

    status: str = Field(description="ready, or why not: starting, draining, no store.", examples=["ready"])
    checkpoints: list[str] = Field(description="Names of the checkpoints there are.")
    sessions: int | None = Field(description="Sessions stored; null if the store does not answer.")


def build_health(
    lifecycle: Lifecycle,
    storage: Storage,
    pool: BoundedPool,
    metrics: Metrics,
    checkpoint_names: Callable[[], list[str]],
) -> APIRouter:
    """Routes that are answered even under load and while draining."""
    router = APIRouter(tags=["health"])

    def count() -> int:
        with storage.store.read() as c:
            return store_sessions.count_sessions(c)

    async def check(response: Response) -> Health:
        try:
            sessions = await pool.run(count)
        except ServiceError:
            sessions = None
        status = lifecycle.phase.value if sessions is not None else "no store"
        if status != "ready":
            response.status_code = 503
        return Health(status=status, checkpoints=checkpoint_names(), sessions=sessions)

    unready = {503: {"description": "Calls are not served now.", "model": Health}}

    @router.get("/livez")
    async def livez() -> Alive:
        """200 as long as the process answers."""
        return Alive(status="alive")

    @router.get("/readyz", responses=unready)  # type: ignore[arg-type]
    async def readyz(response: Response) -> Health:
        """200 while calls are served; 503 while starting, draining, or without a store."""
        return await check(response)

    @router.get("/healthz", responses=unready)  # type: ignore[arg-type]
    async def healthz(response: Response) -> Health:
        """The same as /readyz."""
        return await check(response)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus."}},
    )
    async def metrics_text() -> Response:
        """Prometheus metrics."""
        return Response(metrics.text(), media_type=metrics.content_type)

    return router
