"""Who sends calls: one service, reached, blocking or not. Each call is sent once; retries are the client's business.

Calls (what is sent)  ──►  Transport       send, stream            blocking
                      └──►  AsyncTransport  send, stream            awaited
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

from mier_client.calls import ActQuery, Call, Calls, Page, TransitionBatch
from mier_client.values import Operation

__all__ = ["ActQuery", "ActStream", "AsyncActStream", "AsyncTransport", "Page", "TransitionBatch", "Transport"]

P = ParamSpec("P")
Value = TypeVar("Value")
ValueOut = TypeVar("ValueOut", covariant=True)


class Sent(Protocol[P, ValueOut]):
    """A method with the parameters of a call that returns the call's value."""

    @overload
    def __get__(self, sender: None, owner: type) -> Self: ...
    @overload
    def __get__(self, sender: object, owner: type) -> Callable[P, ValueOut]: ...


def sent(describe: Callable[Concatenate[Calls, P], Call[Value]]) -> Sent[P, Value]:
    """The method that sends what the sender's own description of that name says."""

    @wraps(describe)
    def method(sender: ActStream | Transport, *args: P.args, **kwargs: P.kwargs) -> Value:
        call: Call[Value] = getattr(sender.calls, describe.__name__)(*args, **kwargs)
        return sender.send(call)

    return cast(Sent[P, Value], method)


class ActStream(ABC):
    """A control loop's acting; for one thread."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    @abstractmethod
    def send(self, call: Call[Value]) -> Value:
        """The answer of an act, asked once."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what is its own."""

    act = sent(Calls.act)


class Transport(ABC):
    """One service, reached by calls that block; safe to share between threads."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    @abstractmethod
    def send(self, call: Call[Value]) -> Value:
        """The answer, or a typed error; asked once."""

    @abstractmethod
    def stream(self, call: Call[Value]) -> Iterator[Value]:
        """The answers of a call that has many."""

    @abstractmethod
    def open_act_stream(self) -> ActStream:
        """What asks for many actions in a row at the least cost that the transport has."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the connection."""

    create_session = sent(Calls.create_session)
    get_session = sent(Calls.get_session)
    list_sessions = sent(Calls.list_sessions)
    delete_session = sent(Calls.delete_session)
    pause = sent(Calls.pause)
    set_mode = sent(Calls.set_mode)
    resume = sent(Calls.resume)
    act = sent(Calls.act)
    submit_transitions = sent(Calls.submit_transitions)
    list_transitions = sent(Calls.list_transitions)
    adapt = sent(Calls.adapt)
    finetune = sent(Calls.finetune)
    get_operation = sent(Calls.get_operation)
    cancel_operation = sent(Calls.cancel_operation)
    list_versions = sent(Calls.list_versions)
    promote = sent(Calls.promote)
    roll_back = sent(Calls.roll_back)
    pin = sent(Calls.pin)
    unpin = sent(Calls.unpin)
    move = sent(Calls.move)
    list_promotions = sent(Calls.list_promotions)
    get_bundle = sent(Calls.get_bundle)
    live = sent(Calls.live)
    ready = sent(Calls.ready)

    def watch_operation(self, operation_id: str, timeout_s: float) -> Iterator[Operation]:
        return self.stream(self.calls.watch_operation(operation_id, timeout_s))


class AsyncActStream(ABC):
    """A control loop's acting; for one task."""

    @abstractmethod
    async def send(self, call: Call[Value]) -> Value:
        """As `ActStream.send`."""

    @abstractmethod
    async def close(self) -> None:
        """As `ActStream.close`."""


class AsyncTransport(ABC):
    """One service, reached from one event loop. A task that is cancelled cancels its call."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    @abstractmethod
    async def send(self, call: Call[Value]) -> Value:
        """As `Transport.send`."""

    @abstractmethod
    def stream(self, call: Call[Value]) -> AsyncGenerator[Value, None]:
        """As `Transport.stream`."""

    @abstractmethod
    def open_act_stream(self) -> AsyncActStream:
        """As `Transport.open_act_stream`."""

    @abstractmethod
    async def close(self) -> None:
        """As `Transport.close`."""


def own(kind: type[Any], call: Call[Any]) -> Any:
    """The call, which must be one of the transport's own kind."""
    if not isinstance(call, kind):
        raise TypeError(f"expected a {kind.__name__}, got {type(call).__name__}: a transport sends its own calls")
    return call
