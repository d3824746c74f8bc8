"""Who is calling: the one seam between a transport, which knows, and what is recorded."""

from __future__ import annotations

from contextvars import ContextVar

_caller: ContextVar[str] = ContextVar("mier_caller", default="anonymous")


def current_caller() -> str:
    """Name of the caller of the request under way; read on the event loop, in the request's own task."""
    return _caller.get()


def set_caller(name: str) -> None:
    """For the transport, before it calls a use case."""
    _caller.set(name)
