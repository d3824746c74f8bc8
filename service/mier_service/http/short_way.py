"""`POST /act` as robots send it, at control rate: without the framework, which takes longer than all the rest.

What goes this way is told by its head alone: a JSON body without a query, or a binary one whose query has the known
names once each, in their plainest form. All else, whatever is odd about it, is the framework's (`http/acting.py`): it
ends in the same functions, and no rule is written twice.
"""

from __future__ import annotations

from typing import NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from mier_service.access.guarded import GuardedCore
from mier_service.acting.acting import ActCall
from mier_service.acting.budget import Budget
from mier_service.http.acting import answer, observation_of, received_at_s
from mier_service.http.bodies import BINARY, JSON, ActBody, parse_body
from mier_service.offload import BoundedPool
from mier_service.watching.loop_watch import LoopWatch

_PATHS = ("/act", "/v1/act")
_JSON, _BINARY = JSON.encode(), BINARY.encode()
_DIGITS = 9
"""As many digits as any of them has are a legal index."""
_BUDGET_DIGITS = 4
"""The same of a budget, but for 0."""
_FLAGS = {b"true": True, b"false": False}


class _Asked(NamedTuple):
    """What the head of a request says that goes the short way."""

    wants_binary: bool
    query: dict[bytes, bytes] | None
    """Of a binary body; None: it is JSON."""


class _Route(NamedTuple):
    """For what watches the calls."""

    path: str


class ShortWay:
    """An ASGI application: answers acts by itself, and hands the rest on."""

    def __init__(self, rest: ASGIApp, core: GuardedCore, pool: BoundedPool, watch: LoopWatch) -> None:
        self._rest = rest
        self._core = core
        self._pool = pool
        self._watch = watch
        self._routes = {path: _Route(path) for path in _PATHS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in self._routes and (asked := _asked(scope)) is not None:
            await self.act(asked, scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def act(self, asked: _Asked, scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"], scope["route"] = self.act, self._routes[scope["path"]]
        data, received_s = await _body(receive), received_at_s(scope)
        if asked.query is None:
            call = (await parse_body(data, ActBody, self._pool)).call(received_s)
        else:
            call = _binary_call(data, asked.query, received_s)
        if call.budget is not None:
            self._watch.want()
        body, headers = answer(await self._core.acting.act(call), asked.wants_binary)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _asked(scope: Scope) -> _Asked | None:
    """None: it goes the long way."""
    if scope["method"] != "POST":
        return None
    kind = accept = None
    for name, value in scope["headers"]:
        if name == b"content-type" and kind is None:
            kind = value
        elif name == b"accept" and accept is None:
            accept = value
    wants_binary = accept is not None and _BINARY in accept
    text: bytes = scope["query_string"]
    if kind == _JSON:
        return None if text else _Asked(wants_binary, None)
    if kind != _BINARY:
        return None
    query: dict[bytes, bytes] = {}
    for part in text.split(b"&"):
        name, _, value = part.partition(b"=")
        if name in query or not _is_plain(name, value):
            return None
        query[name] = value
    return _Asked(wants_binary, query) if b"session_id" in query else None


def _is_plain(name: bytes, value: bytes) -> bool:
    """Whether it means the same to whoever reads it."""
    if name == b"session_id":
        return value.isalnum() and len(value) <= 100
    if name == b"deterministic":
        return value in _FLAGS
    if name == b"budget_ms":
        return value.isdigit() and len(value) <= _BUDGET_DIGITS and value.strip(b"0") != b""
    return name in (b"episode", b"step") and value.isdigit() and len(value) <= _DIGITS


def _binary_call(data: bytes, query: dict[bytes, bytes], received_s: float) -> ActCall:
    episode, step, budget_ms = query.get(b"episode"), query.get(b"step"), query.get(b"budget_ms")
    return ActCall(
        query[b"session_id"].decode(),
        observation_of(data),
        _FLAGS[query.get(b"deterministic", b"false")],
        None if episode is None else int(episode),
        None if step is None else int(step),
        None if budget_ms is None else Budget.of(received_s, float(budget_ms)),
    )


async def _body(receive: Receive) -> bytes:
    """As the framework reads it."""
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        return message.get("body", b"")  # type: ignore[no-any-return]
    parts = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    raise ClientDisconnect
