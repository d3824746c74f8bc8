"""The routes of the page: use cases -> views -> HTML, and forms -> use cases. Nothing is decided here.

Everything but the login and static files comes through the gate before it gets here (`http/app.py`), as a call of the
login's key; use cases ask it again. Templates are rendered in a thread, so that a large page delays no act.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from sse_starlette import EventSourceResponse
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount

from mier_service.access.gate import Gate
from mier_service.access.guarded import GuardedCore
from mier_service.access.keys import Scope
from mier_service.access.logins import Logins
from mier_service.errors import Reason, ServiceError
from mier_service.http.parameters import PageToken
from mier_service.lifecycle import Lifecycle, Phase
from mier_service.offload import BoundedPool
from mier_service.sessions.history import HistoryValue
from mier_service.ui import rendering, views
from mier_service.ui.browser import give_token, read_form, take_token_back, token_of
from mier_service.ui.deeds import DEEDS, deed_of
from mier_service.ui.live import Sections, follow
from mier_service.ui.rendering import HEADERS, ROOT, page
from mier_service.watching.monitor import Monitor
from mier_service.watching.traffic import Traffic

_PING_EVERY_S = 15
_OVERVIEW_EVERY_S, _SESSION_EVERY_S = 2.0, 0.5
_PER_PAGE = 50
_OVERVIEW = ("service", "sessions")
_SESSION = ("state", "returns", "learning", "strangeness", "context", "lineage", "record")
_LOCAL = re.compile(rf"{ROOT}(/[\w-]+)*")


class Pages:
    """What all routes share."""

    def __init__(
        self,
        core: GuardedCore,
        gate: Gate,
        logins: Logins,
        monitor: Monitor,
        traffic: Traffic,
        lifecycle: Lifecycle,
        pool: BoundedPool,
        idle_s: float,
    ) -> None:
        """`pool` is for rendering; a page on which nothing happens for `idle_s` is asked to come again."""
        self.core = core
        self.gate = gate
        self.logins = logins
        self._monitor = monitor
        self._traffic = traffic
        self._lifecycle = lifecycle
        self._pool = pool
        self._idle_s = idle_s

    def login(self, request: Request) -> views.Login:
        caller = self.gate.caller()
        return views.Login(caller.key_id, caller.scope, self.logins.form_token(token_of(request.scope)))

    async def overview(self, page_token: str) -> views.Overview:
        sessions = await self.core.sessions.list(_PER_PAGE, page_token)
        may_see = self.gate.caller().scope.includes(Scope.ADAPT)
        unfinished = await self.core.history.unfinished() if may_see else None
        now = self._traffic.now
        return views.overview(
            self._monitor.status,
            self._monitor.checks,
            list(self._traffic.intervals),
            now.under_way if now else 0.0,
            sessions,
            unfinished,
        )

    async def session(self, session_id: str) -> HistoryValue:
        found = await self.core.history.of(session_id)
        assert found is not None  # it always differs from no mark
        return found

    async def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        login = self.login(request)
        once = secrets.token_hex(16)
        html = await self._pool.run(rendering.text, template, login=login, once=once, path=request.url.path, **values)
        return page(html, status)

    async def sections(self, request: Request, names: tuple[str, ...], **values: Any) -> Sections:
        login = self.login(request)

        def render() -> Sections:
            return {name: rendering.text(f"sections/{name}.html", login=login, **values) for name in names}

        return await self._pool.run(render)

    def stream(self, request: Request, look: Callable[[], Awaitable[Sections | None]], every_s: float) -> Response:
        return EventSourceResponse(
            follow(look, every_s, self._draining, self._idle_s, request.scope.get("mier.request_id", "")),
            ping=_PING_EVERY_S,
            headers=HEADERS,
        )

    def _draining(self) -> bool:
        return self._lifecycle.phase is Phase.DRAINING


def build_pages(pages: Pages) -> APIRouter:
    """All of /ui."""
    router = APIRouter(prefix=ROOT, include_in_schema=False)
    _add_login(router, pages)
    _add_overview(router, pages)
    _add_session(router, pages)
    return router


def static_files() -> Mount:
    return Mount(rendering.STATIC, rendering.Static(), name="ui_static")


def _add_login(router: APIRouter, pages: Pages) -> None:
    logins = pages.logins

    def form(request: Request, onward: str, error: ServiceError | None = None) -> Response:
        token = logins.form_token(token_of(request.scope))
        html = rendering.text("login.html", login=None, form_token=token, onward=onward, error=error)
        return page(html, error.rule.http_status if error else 200)

    @router.get("/login")
    async def ui_login(request: Request, next: str = ROOT) -> Response:  # noqa: A002
        """The form; there is nothing to ask where no keys are."""
        return form(request, _local(next)) if logins.needed else _to(ROOT)

    @router.post("/login")
    async def ui_log_in(request: Request) -> Response:
        """A key becomes a login, in place of the one that the browser had."""
        fields = await read_form(request, logins)
        onward = _local(fields.get("next", ""))
        try:
            token = logins.open(fields.get("key", "").strip())
        except ServiceError as error:
            return form(request, onward, error)
        logins.close(token_of(request.scope))
        response = _to(onward)
        give_token(response, request.scope, token)
        return response

    @router.post("/logout")
    async def ui_log_out(request: Request) -> Response:
        """The login ends here and in the browser."""
        await read_form(request, logins)
        logins.close(token_of(request.scope))
        response = _to(f"{ROOT}/login")
        take_token_back(response, request.scope)
        return response


def _add_overview(router: APIRouter, pages: Pages) -> None:
    @router.get("")
    async def ui_overview(request: Request, page_token: PageToken = "") -> Response:
        """The fleet, and its sessions."""
        view = await pages.overview(page_token)
        return await pages.page(request, "overview.html", view=view, page_token=page_token)

    @router.get("/events")
    async def ui_overview_events(request: Request, page_token: PageToken = "") -> Response:
        """The same, as it changes."""
        await pages.overview(page_token)  # what is refused is refused before the stream begins

        async def look() -> Sections:
            return await pages.sections(request, _OVERVIEW, view=await pages.overview(page_token))

        return pages.stream(request, look, _OVERVIEW_EVERY_S)

    @router.get("/open")
    async def ui_open_session(session: str = "") -> Response:
        """To the session of that id."""
        return _to(_local(f"{ROOT}/sessions/{session.strip()}"))


def _add_session(router: APIRouter, pages: Pages) -> None:
    core = pages.core

    async def show(request: Request, session_id: str, did: str = "", error: ServiceError | None = None) -> Response:
        view = views.session_view(await pages.session(session_id))
        done = DEEDS[did].done if did in DEEDS else ""
        status = error.rule.http_status if error else 200
        return await pages.page(request, "session.html", status, view=view, done=done, error=error)

    @router.get("/sessions/{session_id}")
    async def ui_session(request: Request, session_id: str, did: str = "") -> Response:
        """One session."""
        return await show(request, session_id, did)

    @router.get("/sessions/{session_id}/events")
    async def ui_session_events(request: Request, session_id: str) -> Response:
        """The same, as it changes."""
        mark = ""
        once = secrets.token_hex(16)
        await core.sessions.get(session_id)  # what is refused is refused before the stream begins

        async def look() -> Sections | None:
            nonlocal mark
            found = await core.history.of(session_id, mark)
            if found is None:
                return None
            mark = found.mark
            return await pages.sections(request, _SESSION, once=once, view=views.session_view(found))

        return pages.stream(request, look, _SESSION_EVERY_S)

    @router.post("/sessions/{session_id}/{deed}")
    async def ui_decide(request: Request, session_id: str, deed: str) -> Response:
        """Does what a form asks for. What is refused is said on the session's page, where the next try is made."""
        chosen = deed_of(deed)
        fields = await read_form(request, pages.logins)
        try:
            await chosen.do(core, session_id, fields)
        except ServiceError as error:
            if error.reason in (Reason.SESSION_NOT_FOUND, Reason.UNAUTHENTICATED):
                raise
            return await show(request, session_id, error=error)
        return _to(f"{ROOT}/sessions/{session_id}?did={deed}")


def _to(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303, HEADERS)


def _local(path: str) -> str:
    """The path if it is one of these pages, else the first of them: nobody is sent elsewhere."""
    return path if _LOCAL.fullmatch(path) else ROOT
