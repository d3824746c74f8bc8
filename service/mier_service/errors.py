"""What a use case refuses, and how each transport says so.

One `ServiceError` type with a stable `Reason`. `RULES` maps a reason one to one to an HTTP status and a gRPC
code, so that the two transports cannot drift apart. Messages say what was expected, what came, what to do; they
never hold a traceback or a path of the server. They may quote the caller, so they are cut to a length: gRPC carries a
refusal in its trailers, and a client drops those beyond 8 KiB with everything that they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import grpc


class Reason(StrEnum):
    """Stable names of refusals: ErrorInfo.reason in gRPC, the end of the problem type's URI in HTTP."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    CHECKPOINT_NOT_FOUND = "CHECKPOINT_NOT_FOUND"
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND"
    VERSION_NOT_FOUND = "VERSION_NOT_FOUND"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    NOT_ACCEPTABLE = "NOT_ACCEPTABLE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    PEER_TOO_SLOW = "PEER_TOO_SLOW"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"
    ADAPTATION_FAILED = "ADAPTATION_FAILED"
    ENVIRONMENT_MISMATCH = "ENVIRONMENT_MISMATCH"
    OBSERVATION_TOO_OLD = "OBSERVATION_TOO_OLD"
    PREVIOUS_ACTION_UNKNOWN = "PREVIOUS_ACTION_UNKNOWN"
    SESSION_PAUSED = "SESSION_PAUSED"
    SESSION_CHANGED = "SESSION_CHANGED"
    VERSION_PINNED = "VERSION_PINNED"
    NO_EARLIER_VERSION = "NO_EARLIER_VERSION"
    OPERATION_IN_PROGRESS = "OPERATION_IN_PROGRESS"
    CHECKPOINT_CHANGED = "CHECKPOINT_CHANGED"
    TRANSITION_CONFLICT = "TRANSITION_CONFLICT"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    TOO_MANY_SESSIONS = "TOO_MANY_SESSIONS"
    TOO_MANY_FINE_TUNES = "TOO_MANY_FINE_TUNES"
    TOO_MUCH_STORED = "TOO_MUCH_STORED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    OVERLOADED = "OVERLOADED"
    QUEUE_FULL = "QUEUE_FULL"
    DRAINING = "DRAINING"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    CHECKPOINT_UNUSABLE = "CHECKPOINT_UNUSABLE"
    VERSION_UNUSABLE = "VERSION_UNUSABLE"
    FINE_TUNE_FAILED = "FINE_TUNE_FAILED"
    INTERNAL = "INTERNAL"


class Rule(NamedTuple):
    """How a reason looks on the wire."""

    http_status: int
    grpc_code: grpc.StatusCode
    title: str
    retry_after_s: int | None = None


_C = grpc.StatusCode
_TYPE_PREFIX = "urn:problem-type:mier:"

RULES: dict[Reason, Rule] = {
    Reason.UNAUTHENTICATED: Rule(401, _C.UNAUTHENTICATED, "No valid key came with the call"),
    Reason.PERMISSION_DENIED: Rule(403, _C.PERMISSION_DENIED, "The key does not allow this"),
    Reason.MALFORMED_REQUEST: Rule(400, _C.INVALID_ARGUMENT, "The request cannot be read"),
    Reason.INVALID_ARGUMENT: Rule(422, _C.INVALID_ARGUMENT, "A value of the request is not legal"),
    Reason.SESSION_NOT_FOUND: Rule(404, _C.NOT_FOUND, "No such session"),
    Reason.CHECKPOINT_NOT_FOUND: Rule(404, _C.NOT_FOUND, "No such checkpoint"),
    Reason.OPERATION_NOT_FOUND: Rule(404, _C.NOT_FOUND, "No such operation"),
    Reason.VERSION_NOT_FOUND: Rule(404, _C.NOT_FOUND, "No such version"),
    Reason.ROUTE_NOT_FOUND: Rule(404, _C.UNIMPLEMENTED, "No such route"),
    Reason.METHOD_NOT_ALLOWED: Rule(405, _C.UNIMPLEMENTED, "The route does not take this method"),
    Reason.NOT_ACCEPTABLE: Rule(406, _C.INVALID_ARGUMENT, "No reply of the accepted media types exists"),
    Reason.UNSUPPORTED_MEDIA_TYPE: Rule(415, _C.INVALID_ARGUMENT, "The body's media type is not supported"),
    Reason.BODY_TOO_LARGE: Rule(413, _C.RESOURCE_EXHAUSTED, "The request is too large"),
    Reason.PEER_TOO_SLOW: Rule(408, _C.DEADLINE_EXCEEDED, "The peer kept the service waiting"),
    Reason.INSUFFICIENT_DATA: Rule(409, _C.FAILED_PRECONDITION, "Too few transitions"),
    Reason.ADAPTATION_FAILED: Rule(409, _C.FAILED_PRECONDITION, "No context fits the transitions"),
    Reason.ENVIRONMENT_MISMATCH: Rule(409, _C.FAILED_PRECONDITION, "The environment does not fit the checkpoint"),
    Reason.OBSERVATION_TOO_OLD: Rule(409, _C.FAILED_PRECONDITION, "The observation is too old"),
    Reason.PREVIOUS_ACTION_UNKNOWN: Rule(409, _C.FAILED_PRECONDITION, "The step before is not known"),
    Reason.SESSION_PAUSED: Rule(409, _C.FAILED_PRECONDITION, "The session is paused"),
    Reason.SESSION_CHANGED: Rule(409, _C.ABORTED, "The session changed in the meantime"),
    Reason.VERSION_PINNED: Rule(409, _C.FAILED_PRECONDITION, "The active version is pinned"),
    Reason.NO_EARLIER_VERSION: Rule(409, _C.FAILED_PRECONDITION, "Nothing acted before"),
    Reason.OPERATION_IN_PROGRESS: Rule(409, _C.FAILED_PRECONDITION, "The session is being fine-tuned already"),
    Reason.CHECKPOINT_CHANGED: Rule(409, _C.FAILED_PRECONDITION, "The session's checkpoint is not here any more"),
    Reason.TRANSITION_CONFLICT: Rule(409, _C.ALREADY_EXISTS, "A stored step differs"),
    Reason.IDEMPOTENCY_KEY_REUSED: Rule(409, _C.ALREADY_EXISTS, "The idempotency key belongs to another request"),
    Reason.TOO_MANY_CALLS: Rule(429, _C.RESOURCE_EXHAUSTED, "The key has too many calls under way", 1),
    Reason.TOO_MANY_SESSIONS: Rule(429, _C.RESOURCE_EXHAUSTED, "The key has opened too many sessions", 60),
    Reason.TOO_MANY_FINE_TUNES: Rule(429, _C.RESOURCE_EXHAUSTED, "The key has too many fine-tunes", 10),
    Reason.TOO_MUCH_STORED: Rule(429, _C.RESOURCE_EXHAUSTED, "The key has stored too much", 60),
    Reason.DEADLINE_EXCEEDED: Rule(503, _C.DEADLINE_EXCEEDED, "No answer within the budget", 1),
    Reason.OVERLOADED: Rule(503, _C.RESOURCE_EXHAUSTED, "Too much is being asked at once", 1),
    Reason.QUEUE_FULL: Rule(503, _C.RESOURCE_EXHAUSTED, "The queue of fine-tunes is full", 10),
    Reason.DRAINING: Rule(503, _C.UNAVAILABLE, "The service is stopping", 5),
    Reason.STORAGE_UNAVAILABLE: Rule(503, _C.UNAVAILABLE, "The store cannot be used", 5),
    Reason.CHECKPOINT_UNUSABLE: Rule(503, _C.UNAVAILABLE, "The checkpoint is damaged", 60),
    Reason.VERSION_UNUSABLE: Rule(503, _C.UNAVAILABLE, "The policy version is damaged", 60),
    Reason.FINE_TUNE_FAILED: Rule(500, _C.INTERNAL, "The fine-tune failed"),
    Reason.INTERNAL: Rule(500, _C.INTERNAL, "Something unexpected happened"),
}


_MAX_DETAIL, _MAX_VIOLATIONS, _MAX_VIOLATION = 2000, 1000, 250
"""Bytes on the wire of a detail (percent-encoded), of all violations, and of one of their fields or descriptions."""


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field of the request."""

    field: str
    """Dotted path, such as `observation` or `window.last_steps`."""
    description: str


class ServiceError(Exception):
    """A use case refused the call."""

    def __init__(
        self, reason: Reason, detail: str, violations: tuple[Violation, ...] = (), *, challenge: str = ""
    ) -> None:
        """`challenge` is for WWW-Authenticate (RFC 6750), where the key is at fault."""
        super().__init__(detail)
        self.reason = reason
        self.detail = _cut(detail, _MAX_DETAIL)
        self.violations = _within(violations)
        self.challenge = challenge

    @property
    def rule(self) -> Rule:
        return RULES[self.reason]

    @property
    def type_uri(self) -> str:
        """The stable name as a URI, the same on both transports."""
        return _TYPE_PREFIX + self.reason.value.lower().replace("_", "-")


def invalid(field: str, description: str) -> ServiceError:
    """One field is at fault."""
    return ServiceError(Reason.INVALID_ARGUMENT, description, (Violation(field, description),))


def session_not_found(session_id: str) -> ServiceError:
    return ServiceError(
        Reason.SESSION_NOT_FOUND,
        f"there is no session {session_id[:80]!r}: create one first, or list the sessions there are",
    )


def version_not_found(session_id: str, number: int) -> ServiceError:
    return ServiceError(
        Reason.VERSION_NOT_FOUND,
        f"session {session_id} has no version {number}: list its versions to see which there are",
    )


def operation_not_found(operation_id: str) -> ServiceError:
    return ServiceError(
        Reason.OPERATION_NOT_FOUND,
        f"there is no operation {operation_id[:80]!r}: the reply of a fine-tune carries its id",
    )


def _within(violations: tuple[Violation, ...]) -> tuple[Violation, ...]:
    """The first ones, as many as there is room for."""
    kept: list[Violation] = []
    left = _MAX_VIOLATIONS
    for given in violations:
        short = Violation(_cut(given.field, _MAX_VIOLATION), _cut(given.description, _MAX_VIOLATION))
        left -= _wire_bytes(short.field) + _wire_bytes(short.description)
        if left < 0:
            break
        kept.append(short)
    return tuple(kept)


def _cut(text: str, most: int) -> str:
    """The text if it takes no more bytes on the wire, else its beginning."""
    head = text[:most]
    if len(head) == len(text) and _wire_bytes(head) <= most:
        return text
    kept, left = 0, most - len("...")
    for letter in head:
        left -= _wire_bytes(letter)
        if left < 0:
            break
        kept += 1
    return text[:kept] + "..."


def _wire_bytes(text: str) -> int:
    """Bytes of a text in gRPC's trailers: what is not printable ASCII takes three for each byte of UTF-8."""
    plain = sum(" " <= letter <= "~" and letter != "%" for letter in text)
    return plain + 3 * (len(text.encode(errors="replace")) - plain)
