"""Keeps the gate's table as new as the store: what bounds the time until a revoked key is refused."""

from __future__ import annotations

import asyncio

import structlog

from mier_service.access.gate import Gate
from mier_service.errors import ServiceError
from mier_service.offload import BoundedPool

_log = structlog.get_logger(__name__)


async def keep_current(gate: Gate, pool: BoundedPool, period_s: float) -> None:
    """Until cancelled. A look costs one number read; the keys themselves only when one was made or revoked."""
    while True:
        await asyncio.sleep(period_s)
        if not gate.required:
            continue
        try:
            gate.take(await pool.run(gate.read))
        except ServiceError as error:
            _log.warning("keys_not_read", detail=error.detail)
