"""Every use case as it is watched: a span, and what its answer tells the metrics and the log.

`watched` goes around what transports are given, so that a use case is watched because it is there: nothing has to be
added for a new one.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from opentelemetry.trace import Span

from mier_service.access.guarded import GuardedCore
from mier_service.acting.acting import Action
from mier_service.errors import Reason, ServiceError
from mier_service.values import AdaptationValue, OperationValue, SessionValue, StoredValue
from mier_service.watching.calls import current_call, note
from mier_service.watching.metrics import Metrics
from mier_service.watching.tracing import span

T = TypeVar("T")
_DECISIONS = frozenset(("promote", "roll_back", "pin", "unpin", "move"))


def watched(core: GuardedCore, metrics: Metrics) -> GuardedCore:
    """The same use cases."""
    return GuardedCore(**{part.name: _part(part.name, getattr(core, part.name), metrics) for part in fields(core)})


def use_cases(part: object) -> dict[str, Callable[..., Any]]:
    """The public methods of one part of the core."""
    return {name: getattr(part, name) for name, found in vars(type(part)).items() if callable(found) and name[0] != "_"}


def _part(part_name: str, part: T, metrics: Metrics) -> T:
    return cast(
        T,
        SimpleNamespace(
            **{
                name: _listen(found) if inspect.isasyncgenfunction(found) else _watch(part_name, name, found, metrics)
                for name, found in use_cases(part).items()
            }
        ),
    )


def _watch(
    part: str, name: str, use_case: Callable[..., Awaitable[Any]], metrics: Metrics
) -> Callable[..., Awaitable[Any]]:
    span_name = f"{part}.{name}"
    single_act = span_name == "acting.act"

    async def within(*args: Any, **kwargs: Any) -> Any:
        call = current_call()
        streamed = single_act and call is not None and call.name == "act_stream"
        started_s = time.perf_counter()
        try:
            with span(span_name, of_its_own=streamed) as step:
                result = await use_case(*args, **kwargs)
                _note(result)
                if step.is_recording():
                    _describe(step)
        except ServiceError as error:
            if single_act:
                metrics.acted(_transport(), error.reason.value)
            raise
        except Exception:
            if single_act:
                metrics.acted(_transport(), Reason.INTERNAL.value)
            raise
        if single_act:
            metrics.acted(_transport(), "OK", time.perf_counter() - started_s)
        elif span_name == "acting.act_batch":
            for outcome in result:
                metrics.acted(_transport(), outcome.reason.value if isinstance(outcome, ServiceError) else "OK")
        elif isinstance(result, AdaptationValue):
            metrics.adapted(result)
        elif name in _DECISIONS:
            metrics.decided(name)
        return result

    return within


def _listen(use_case: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., AsyncGenerator[Any, None]]:
    """Of what streams news for hours only what it is about is noted; its transport's own span is enough."""

    async def within(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(use_case(*args, **kwargs)) as values:
            async for value in values:
                _note(value)
                yield value

    return within


def _transport() -> str:
    call = current_call()
    return "none" if call is None else call.transport


def _note(result: object) -> None:
    match result:
        case Action():
            note(policy_version=result.policy_version)
        case SessionValue():
            note(session=result.id, policy_version=result.active_version)
        case AdaptationValue():
            note(policy_version=result.active_version.number)
        case OperationValue():
            note(session=result.session_id, operation=result.id, policy_version=result.result_version or None)
        case StoredValue():
            pass


def _describe(step: Span) -> None:
    call = current_call()
    if call is not None:
        step.set_attributes({f"mier.{name}": value for name, value in call.about().items()})
