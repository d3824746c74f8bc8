"""A reply that is not what the contract says is a fault of who sent it, and is told so: never a KeyError of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import httpx

from mier_client.errors import Problem, ServerFault

Body = TypeVar("Body")
Value = TypeVar("Value")
_MAX_CAUSE = 200


def reply(what: str) -> Callable[[Callable[[Body], Value]], Callable[[Body], Value]]:
    """Decorates a reader of `what`: whatever else its body may be, it raises ServerFault (UNEXPECTED_REPLY)."""

    def decorate(read: Callable[[Body], Value]) -> Callable[[Body], Value]:
        @wraps(read)
        def checked(body: Body) -> Value:
            try:
                return read(body)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
                cause = f"{type(error).__name__}: {error}"[:_MAX_CAUSE]
                raise unexpected(f"expected {what}, got something else ({cause})") from error

        return checked

    return decorate


def json_object(response: httpx.Response) -> dict[str, Any] | None:
    """The object that the body is; None if it is something else."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def require_within(size_bytes: int, max_bytes: int) -> None:
    """ServerFault (REPLY_TOO_LARGE) for more."""
    if size_bytes > max_bytes:
        raise ServerFault(Problem("REPLY_TOO_LARGE", f"expected a reply of at most {max_bytes} bytes, got more"))


def unexpected(detail: str) -> ServerFault:
    return ServerFault(Problem("UNEXPECTED_REPLY", detail))
