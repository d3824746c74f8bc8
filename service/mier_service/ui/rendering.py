"""Pages as they leave: Jinja templates with everything escaped, and the headers that keep them to themselves.

Nothing comes from another host and no script or style is inline, so the policy below can forbid both. The path to every
static file bears the hash of all of them: a browser may keep them for ever, and never has an old one.
"""

from __future__ import annotations

import hashlib
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ROOT: Final = "/ui"
_STATIC = Path(__file__).with_name("static")
_REVISION = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(_STATIC.rglob("*")) if path.is_file())
).hexdigest()[:12]
STATIC: Final = f"{ROOT}/static/{_REVISION}"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Static(StaticFiles):
    """The files that pages need; nothing in them is secret."""

    def __init__(self) -> None:
        super().__init__(directory=_STATIC)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update({**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"})
        return response


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _number(value: float | None, digits: int = 2) -> str:
    """Few digits, a true minus, thousands apart; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    places = max(0, digits - max(0, math.floor(math.log10(abs(value))))) if value else 0
    return f"{value:,.{places}f}".replace("-", "−").replace(",", "\u202f")


_templates = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.filters.update(moment=_moment, number=_number, words=lambda text: str(text).replace("_", " "))
_templates.globals.update(root=ROOT, static=STATIC)


def prepare() -> None:
    """Compiles all templates, which takes too long for the event loop."""
    for name in _templates.list_templates():
        _templates.get_template(name)


def text(template: str, **values: Any) -> str:
    """A template's HTML. Takes milliseconds where there is much to show: not for the event loop then."""
    return _templates.get_template(template).render(values)


def page(html: str, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
    return HTMLResponse(html, status, {**HEADERS, **(headers or {})})
