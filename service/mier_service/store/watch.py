"""Every transaction of the store is watched: how long it took, whether the storage failed it, and a span."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from mier_service.errors import Reason, ServiceError
from mier_service.watching.tracing import span

P = ParamSpec("P")
T = TypeVar("T")


class Watched(Protocol):
    """A store that says what it did."""

    on_done: Callable[[str, float, bool], None]
    """Told of each transaction: read or write, the seconds it took, whether the storage failed it."""


W = TypeVar("W", bound=Watched)


def watched(
    kind: str,
) -> Callable[
    [Callable[Concatenate[W, P], AbstractContextManager[T]]], Callable[Concatenate[W, P], AbstractContextManager[T]]
]:
    """For a method whose block is a transaction."""

    def decorate(
        method: Callable[Concatenate[W, P], AbstractContextManager[T]],
    ) -> Callable[Concatenate[W, P], AbstractContextManager[T]]:
        @wraps(method)
        @contextmanager
        def within(self: W, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            started_s, failed = time.perf_counter(), False
            try:
                with span(f"store.{kind}"), method(self, *args, **kwargs) as value:
                    yield value
            except ServiceError as error:
                failed = error.reason is Reason.STORAGE_UNAVAILABLE
                raise
            finally:
                self.on_done(kind, time.perf_counter() - started_s, failed)

        return within

    return decorate
