"""How a gRPC call is answered: through the gate, measured, refusals as statuses, nothing unexpected shown."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any, NoReturn, TypeVar

import structlog
from google.protobuf.message import Message

from mier_service.access.gate import Gate
from mier_service.errors import Reason, ServiceError
from mier_service.grpc.statuses import status_of
from mier_service.watching.call_watch import CallWatch
from mier_service.watching.metrics import Metrics

M = TypeVar("M", bound=Message)
Rpc = Any  # grpc.aio.ServicerContext, which the stubs type in two ways at once
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_named: ContextVar[str | None] = ContextVar("mier_grpc_request_id", default=None)
"""What the call under way is named, once that was asked; each call has its own context."""
_log = structlog.get_logger(__name__)


class Answers:
    """What every call has in common."""

    def __init__(self, gate: Gate, metrics: Metrics) -> None:
        self._gate = gate
        self._metrics = metrics

    async def one(self, call: str, rpc: Rpc, work: Callable[[], Awaitable[M]]) -> M:
        """The reply that `work` gives, or its refusal."""
        watch = self._begin(call, rpc)
        outcome = "CANCELLED"
        try:
            self.enter(rpc)
            reply = await work()
            outcome = "OK"
            return reply
        except ServiceError as error:
            outcome = error.reason.value
            await refuse(rpc, error)
        except Exception:
            outcome = Reason.INTERNAL.value
            await refuse(rpc, _unexpected(call, rpc))
        finally:
            _end(watch, call, outcome)

    async def many(self, call: str, rpc: Rpc, work: Callable[[], AsyncIterator[M]]) -> AsyncIterator[M]:
        """The replies that `work` gives; a refusal ends them."""
        watch = self._begin(call, rpc)
        outcome = "CANCELLED"
        try:
            self.enter(rpc)
            async for reply in work():
                yield reply
            outcome = "OK"
        except ServiceError as error:
            outcome = error.reason.value
            await refuse(rpc, error)
        except Exception:
            outcome = Reason.INTERNAL.value
            await refuse(rpc, _unexpected(call, rpc))
        finally:
            _end(watch, call, outcome)

    def _begin(self, call: str, rpc: Rpc) -> CallWatch:
        return CallWatch(self._metrics, "grpc", request_id(rpc), _text(rpc), name_of(call))

    def enter(self, rpc: Rpc) -> None:
        """Lets the call in, or refuses it."""
        self._gate.enter(_authorization(rpc))

    async def none(self, call: str, rpc: Rpc, error: ServiceError) -> NoReturn:
        """The refusal of what reaches no handler; a stranger hears of nothing but the key that is missing."""

        async def work() -> Message:
            raise error

        await self.one(call, rpc, work)
        raise AssertionError("it is refused")


def request_id(rpc: Rpc) -> str:
    """The caller's own, or a new one; the same for all of one call."""
    found = _named.get()
    if found is None:
        found = _own_id(rpc) or os.urandom(16).hex()
        _named.set(found)
    return found


def _own_id(rpc: Rpc) -> str | None:
    for name, value in rpc.invocation_metadata() or ():
        if name == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return None


async def refuse(rpc: Rpc, error: ServiceError) -> NoReturn:
    """Ends the call with the refusal."""
    own = request_id(rpc)
    details = status_of(error, own).SerializeToString()
    metadata = (("x-request-id", own), ("grpc-status-details-bin", details))
    await rpc.abort(error.rule.grpc_code, error.detail, metadata)
    raise AssertionError("abort raises")


def _end(watch: CallWatch, call: str, outcome: str) -> None:
    name = name_of(call)
    watch.ended(outcome, name, f"gRPC {name}", {"rpc.system": "grpc", "rpc.method": call})


@cache
def name_of(call: str) -> str:
    """The name of a call as it is over HTTP."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", call).lower()


def _text(rpc: Rpc) -> Iterator[tuple[str, str]]:
    """The metadata, but for what is binary."""
    for name, value in rpc.invocation_metadata() or ():
        if isinstance(value, str):
            yield name, value


def _authorization(rpc: Rpc) -> Iterator[str]:
    # Not looked at where nobody is asked for a key: gRPC makes the metadata anew each time.
    for name, value in rpc.invocation_metadata() or ():
        if name == "authorization":
            yield str(value)


def _unexpected(call: str, rpc: Rpc) -> ServiceError:
    _log.exception("call_failed", call=call)
    return ServiceError(Reason.INTERNAL, "an error of the service; its log says more")
