"""What a browser sends: the cookie of its login, and forms, which must have been made here."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from mier_service.access.logins import LASTS_S, Logins
from mier_service.errors import Reason, ServiceError
from mier_service.ui.rendering import ROOT

FORM = "application/x-www-form-urlencoded"
_MAX_FORM_BYTES = 16 * 1024
_MAX_FIELDS = 16


def is_page(path: str) -> bool:
    """Whether a browser asks, so that refusals are pages, too."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def needs_no_key(path: str) -> bool:
    return path == f"{ROOT}/login" or path.startswith(f"{ROOT}/static/")


def token_of(scope: Scope) -> str:
    """Of the login that the request is of; empty: none."""
    name = _cookie_name(scope)
    for header, value in scope["headers"]:
        if header == b"cookie" and (found := cookie_parser(value.decode("latin-1")).get(name)):
            return found
    return ""


def give_token(response: Response, scope: Scope, token: str) -> None:
    """Sent back to this path alone, never with what another site asks for, and never shown to a script."""
    response.set_cookie(
        _cookie_name(scope),
        token,
        max_age=LASTS_S,
        path=ROOT,
        secure=scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )


def take_token_back(response: Response, scope: Scope) -> None:
    response.delete_cookie(_cookie_name(scope), path=ROOT, httponly=True, samesite="strict")


async def read_form(request: Request, logins: Logins) -> dict[str, str]:
    """The fields of a form that was made here, for this login; the last of each name."""
    _require_same_origin(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise ServiceError(Reason.UNSUPPORTED_MEDIA_TYPE, f"expected a body of type {FORM}, got another one")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_FORM_BYTES:
            raise ServiceError(
                Reason.BODY_TOO_LARGE, f"expected a form of at most {_MAX_FORM_BYTES} bytes, got more: write less"
            )
    try:
        found = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise ServiceError(Reason.MALFORMED_REQUEST, "expected the fields of a form, got something else") from None
    fields = {name: values[-1] for name, values in found.items()}
    logins.require_form_token(token_of(request.scope), fields.pop("form_token", ""))
    return fields


def _require_same_origin(request: Request) -> None:
    """What a browser says of who made it send the form; what is no browser says nothing, and has no cookie of one."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = urlsplit(origin).netloc == request.headers.get("host") if origin is not None else True
    if site not in (None, "same-origin", "none") or not own:
        raise ServiceError(Reason.PERMISSION_DENIED, "expected a form of this page, got one that another site sent")


def _cookie_name(scope: Scope) -> str:
    """By port, since browsers send a host's cookies to all of its ports."""
    return f"mier_ui_{(scope.get('server') or ('', 0))[1]}"
