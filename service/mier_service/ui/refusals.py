"""Refusals as a person sees them: what is wrong and what to do; to the login where a key is missing."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from mier_service.errors import Reason, ServiceError
from mier_service.ui.rendering import HEADERS, ROOT, page, text


def refused_page(error: ServiceError, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request for a page."""
    path = scope["path"]
    extra = dict(headers or {})
    if error.rule.retry_after_s is not None:
        extra["Retry-After"] = str(error.rule.retry_after_s)
    if error.reason is Reason.UNAUTHENTICATED:
        if scope["method"] in ("GET", "HEAD") and not path.endswith("/events"):
            return RedirectResponse(f"{ROOT}/login?next={quote(path)}", 303, {**HEADERS, **extra})
        extra["WWW-Authenticate"] = error.challenge
    html = text("refused.html", error=error, request_id=scope.get("mier.request_id", ""), login=None)
    return page(html, error.rule.http_status, extra)
