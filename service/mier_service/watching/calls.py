"""What is known of the call under way: for its line in the log, its span, and the labels of its metrics.

Each call has its own context (a task of its own, over both transports), and threads that work for it get a copy, so
nothing here is ever reset. What a call is about becomes known bit by bit: the gate notes the session, the answer the
version.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

_MAX_NOTED = 64
"""Callers may send anything as an id; longer ones are cut."""


@dataclass(slots=True)
class Call:
    """One call of one transport."""

    transport: str
    """http or grpc"""
    request_id: str
    name: str = "none"
    """As over HTTP, for both transports: `fine_tune`, not `FineTune`."""
    session: str | None = None
    policy_version: int | None = None
    operation: str | None = None

    def about(self) -> dict[str, str | int]:
        """What is known."""
        found = {"session": self.session, "policy_version": self.policy_version, "operation": self.operation}
        return {name: value for name, value in found.items() if value is not None}


_current: ContextVar[Call | None] = ContextVar("mier_call", default=None)


def begin(call: Call | None) -> None:
    """What this context is for from here on."""
    _current.set(call)


def current_call() -> Call | None:
    """None outside of any, as in the service's own upkeep."""
    return _current.get()


def note(*, session: str | None = None, policy_version: int | None = None, operation: str | None = None) -> None:
    """What the call under way turned out to be about."""
    call = _current.get()
    if call is None:
        return
    if session is not None:
        call.session = session[:_MAX_NOTED]
    if policy_version is not None:
        call.policy_version = policy_version
    if operation is not None:
        call.operation = operation[:_MAX_NOTED]
