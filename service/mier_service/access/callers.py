"""Who is calling: the one seam between the gate, which knows, and what is recorded."""

from __future__ import annotations

from contextvars import ContextVar

ANONYMOUS = "anonymous"
_caller: ContextVar[str] = ContextVar("mier_caller", default=ANONYMOUS)


def current_caller() -> str:
    """Name of the caller of the request under way: the id of its key, or `anonymous` where none is asked for. Read in
    the request's own task, and in what it has a pool do."""
    return _caller.get()


def set_caller(name: str) -> None:
    """For the gate, as it lets a call in."""
    _caller.set(name)
