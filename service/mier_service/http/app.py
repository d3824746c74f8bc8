"""The HTTP transport: routes at the root and under /v1, every refusal a problem, nothing unexpected shown.

`Guard` wraps the application: it names the request, counts it, refuses when too many are under way (in all, or of one
key), the service is draining or the caller has no key, and turns what nobody caught into a plain problem, with the
traceback in the log alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mier_service.access.admission import Admission
from mier_service.access.gate import Gate
from mier_service.access.key_bounds import CallsUnderWay
from mier_service.access.logins import Logins
from mier_service.config import ServeConfig
from mier_service.errors import Reason, ServiceError
from mier_service.http.bodies import BODIES
from mier_service.http.inference import InferBody
from mier_service.http.links import add_links
from mier_service.http.problems import Problem, from_validation, problem_response
from mier_service.http.protocol import no_place
from mier_service.lifecycle import Lifecycle, Phase
from mier_service.ui.browser import is_page, needs_no_key, token_of
from mier_service.ui.refusals import refused_page
from mier_service.watching.call_watch import CallWatch
from mier_service.watching.loop_watch import LoopWatch
from mier_service.watching.metrics import Metrics

_log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BY_STATUS = {
    404: Reason.ROUTE_NOT_FOUND,
    405: Reason.METHOD_NOT_ALLOWED,
    406: Reason.NOT_ACCEPTABLE,
    415: Reason.UNSUPPORTED_MEDIA_TYPE,
}
_PROBES = frozenset(("/livez", "/readyz", "/healthz", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"))
"""Answered even under load and while draining, at the root and under /v1."""
_DOCS = frozenset(("/docs", "/docs/oauth2-redirect", "/openapi.json"))
"""The contract, which is public. Probes and these are all that needs no key."""
_DESCRIPTION = """\
Adapts a policy to a task that nobody trained for, and acts with it. The same calls exist over gRPC
(`mier_proto.v1.AdaptationService`). Arrays are JSON lists, or raw little-endian float32 where a body may be binary;
NaN and infinity are refused. Every refusal is a problem (RFC 9457) with a stable type. Every route exists at the
root and under `/v1`. Where the service asks for keys, every call needs one: `Authorization: Bearer KEY`.
"""


def build_app(
    calls: APIRouter,
    health: APIRouter,
    inference: APIRouter,
    keys_required: bool = False,
    pages: APIRouter | None = None,
    files: BaseRoute | None = None,
) -> FastAPI:
    """The application without its guard, which is what asks for keys; here it is only said. `pages` and the `files`
    that they need are for a person's browser, at /ui."""
    app = FastAPI(
        title="MIER adaptation service",
        version="1",
        description=_DESCRIPTION,
        servers=[{"url": "/", "description": "root"}, {"url": "/v1", "description": "the same, by version"}],
        redoc_url=None,
        # A path with a slash too many is another path. A redirect would name whatever host the caller named.
        redirect_slashes=False,
    )
    for router in (calls, health):
        app.include_router(router)
        app.include_router(router, prefix="/v1", include_in_schema=False)
    app.include_router(inference)  # has a version in its paths that is not ours
    if pages is not None and files is not None:
        app.router.routes.append(files)
        app.include_router(pages)
    app.add_exception_handler(ServiceError, cast(Any, _refused))
    app.add_exception_handler(RequestValidationError, cast(Any, _invalid))
    app.add_exception_handler(HTTPException, cast(Any, _http_error))
    app.add_exception_handler(Exception, _unexpected)
    _complete_openapi(app, keys_required)
    return app


async def _refused(request: Request, error: ServiceError) -> Response:
    return _respond(request, error)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    # Paths begin with where the value was: path, query, header, body.
    return _respond(request, from_validation(error.errors(), skip=1))


async def _http_error(request: Request, error: HTTPException) -> Response:
    reason = _BY_STATUS.get(error.status_code, Reason.MALFORMED_REQUEST)
    where = f"{request.method} {request.url.path}"
    headers = {"Allow": _methods(request)} if reason is Reason.METHOD_NOT_ALLOWED else error.headers
    details = {
        Reason.ROUTE_NOT_FOUND: f"there is nothing at {where[:200]}: /docs shows what there is",
        Reason.METHOD_NOT_ALLOWED: f"{where[:200]} is not offered: /docs shows what is",
    }
    return _respond(request, ServiceError(reason, details.get(reason, str(error.detail))), headers)


def _methods(request: Request) -> str:
    """All methods of the path; each route knows only its own."""
    path = request.url.path.removeprefix("/v1")
    for template, item in request.app.openapi()["paths"].items():
        if compile_path(template)[0].fullmatch(path):
            return ", ".join(sorted(method.upper() for method in item))
    return "GET"  # the documents themselves, which no document describes


async def _unexpected(request: Request, error: Exception) -> Response:
    return _respond(request, internal_error())


def _respond(request: Request, error: ServiceError, headers: Any = None) -> Response:
    request.scope["mier.outcome"] = error.reason.value
    return _refusal(request.scope, error, headers)


def _refusal(scope: Scope, error: ServiceError, headers: Any = None) -> Response:
    """As who asked reads it."""
    if is_page(scope["path"]):
        return refused_page(error, scope, headers)
    return problem_response(error, scope.get("mier.request_id", ""), headers, scope["path"])


def _complete_openapi(app: FastAPI, keys_required: bool) -> None:
    """Adds the schemas of bodies that the routes read themselves, of problems, and how a key is sent."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            models: tuple[type[BaseModel], ...] = (*BODIES, InferBody, Problem)
            _, extra = models_json_schema(
                [(model, "validation") for model in models],
                ref_template="#/components/schemas/{model}",
            )
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {}).update(extra["$defs"])
            add_links(schema)
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}] if keys_required else [{}, {"key": []}]
            for path, item in schema["paths"].items():
                if path in _PROBES:
                    item["get"]["security"] = []
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


class Guard:
    """Wraps the application (see the header of this file)."""

    def __init__(
        self,
        app: ASGIApp,
        lifecycle: Lifecycle,
        gate: Gate,
        logins: Logins,
        calls: CallsUnderWay,
        metrics: Metrics,
        watch: LoopWatch,
        config: ServeConfig,
    ) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._gate = gate
        self._logins = logins
        self._metrics = metrics
        self._watch = watch
        self._admission = Admission(calls, config.max_http_requests)
        self._max_body_bytes = config.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = request_id_of(scope)
        scope["mier.request_id"] = request_id
        scope["mier.received_s"] = self._watch.received_s()
        watch = CallWatch(self._metrics, "http", request_id, _text(scope["headers"]))
        status: int | None = None

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            async with self._admitted(scope):
                await self._app(scope, self._limited(receive), named)
        except ServiceError as error:
            scope["mier.outcome"] = error.reason.value
            await _refusal(scope, error)(scope, receive, named)
        except ClientDisconnect:
            scope["mier.outcome"] = scope.get("mier.let_go", "CANCELLED")
        except Exception:
            scope["mier.outcome"] = Reason.INTERNAL.value
            _log.exception("request_failed", method=scope["method"], path=scope["path"])
            if status is None:
                await _refusal(scope, internal_error())(scope, receive, named)
        finally:
            call = getattr(scope.get("endpoint"), "__name__", "none")
            attributes = _attributes(scope, status) if watch.traced else {}
            watch.ended(scope.get("mier.outcome", "OK"), call, f"HTTP {call}", attributes)

    @asynccontextmanager
    async def _admitted(self, scope: Scope) -> AsyncIterator[None]:
        """Lets the request in, or refuses it; its place among its key's calls, for as long as it takes."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max_body_bytes:
                raise self._too_large()
        if scope["path"].removeprefix("/v1") in _PROBES:
            yield
            return
        if self._lifecycle.phase is Phase.DRAINING:
            raise ServiceError(Reason.DRAINING, "the service is stopping: ask again once it is back")
        if scope.get("mier.beyond"):
            raise no_place()
        if scope["path"] in _DOCS or needs_no_key(scope["path"]):
            self._admission.require_room()
            yield
            return
        async with self._admission.place(lambda: self._enter(scope)):
            yield

    def _enter(self, scope: Scope) -> None:
        if is_page(scope["path"]):
            self._logins.enter(token_of(scope))
        else:
            self._gate.enter(_authorization(scope))

    def _limited(self, receive: Receive) -> Receive:
        """A body without a Content-Length is counted as it comes."""
        read_bytes = 0

        async def limited() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > self._max_body_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ServiceError:
        return ServiceError(
            Reason.BODY_TOO_LARGE,
            f"expected a body of at most {self._max_body_bytes} bytes, got more: send fewer transitions at once",
        )


def _text(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _authorization(scope: Scope) -> Iterator[str]:
    return (value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization")


def _attributes(scope: Scope, status: int | None) -> dict[str, str | int]:
    """In OpenTelemetry's words."""
    route = getattr(scope.get("route"), "path", None)
    known = {"http.request.method": scope["method"], "http.route": route, "http.response.status_code": status}
    return {name: value for name, value in known.items() if value is not None}


def internal_error() -> ServiceError:
    """All that a caller is told of what nobody expected."""
    return ServiceError(Reason.INTERNAL, "an error of the service; its log says more")


def request_id_of(scope: Scope) -> str:
    """The caller's name for the request, if it is one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return str(text)
    return os.urandom(16).hex()
