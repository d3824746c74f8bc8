"""Typed errors: what the service said was wrong, the same on both transports.

Each carries the service's own words (`detail`: what was expected, what came, what to do), its stable `reason`,
the fields at fault, and the request's id, by which the service's log is searched.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldViolation:
    """One field of the request, and what is wrong with it."""

    field: str
    detail: str


@dataclass(frozen=True)
class Problem:
    """What the service said."""

    reason: str
    """Stable, in capitals, such as SESSION_NOT_FOUND."""
    detail: str
    type: str = "about:blank"
    """URI of the kind of problem (RFC 9457)."""
    request_id: str | None = None
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None


class MierError(Exception):
    """A call that did not succeed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    @property
    def reason(self) -> str:
        return self.problem.reason

    @property
    def detail(self) -> str:
        return self.problem.detail

    @property
    def type(self) -> str:
        return self.problem.type

    @property
    def request_id(self) -> str | None:
        return self.problem.request_id

    def __str__(self) -> str:
        text = f"{self.problem.reason}: {self.problem.detail}"
        for violation in self.problem.violations:
            if violation.detail not in self.problem.detail:
                text += f"; {violation.field}: {violation.detail}"
        return text + (f" (request {self.problem.request_id})" if self.problem.request_id else "")


class InvalidRequest(MierError):
    """The request itself is at fault: a shape, a value, a field. Sent again as it is, it fails again."""


class AccessDenied(MierError):
    """No key, an unknown key, or one without the scope."""


class NotFound(MierError):
    """No such session, operation or checkpoint."""


class Conflict(MierError):
    """The state forbids it: too little data, a paused session, an environment that does not fit, another
    content stored under the same key."""


class Overloaded(MierError):
    """The service has too much to do. Retried while the deadline lasts."""


class QuotaExceeded(Overloaded):
    """A bound of the caller's own key is reached; `reason` says which: calls under way, sessions, fine-tunes or stored
    bytes. Retried as `Overloaded` is, after the pause that the service names; where that pause is longer than the
    deadline, as for sessions and stored bytes, it is raised at once."""


class Unavailable(MierError):
    """The service cannot be reached, or is starting or draining. Retried while the deadline lasts."""


class DeadlineExceeded(MierError):
    """No answer in time. A write may or may not have happened; the same call may be made again."""


class ServerFault(MierError):
    """The service is at fault, or something between it and the caller."""


class OperationFailed(MierError):
    """A fine-tune that was waited for failed or was cancelled."""
