"""`mierctl versions`, by URL: which versions a session has, which acts, and deciding that by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from mier_service.mierctl.output import Json
from mier_service.mierctl.remote import DEFAULT_URL, Ca, Reason, SessionId, Url, connected, print_rows

_VERSION = ["number", "parent", "origin", "promotion", "model_context_number", "transitions_used", "create_time"]
_ENTRY = ["create_time", "kind", "from_version", "to_version", "who", "reason"]
_ACTING = ["id", "active_version", "pinned"]
Number = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Number of the version.")]


def add_lineage(app: typer.Typer) -> None:
    """Adds the commands to a group."""
    app.command("list")(list_versions)
    for command in (history, promote, rollback, pin, unpin):
        app.command()(command)


def list_versions(session_id: SessionId, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Lists a session's policy versions, oldest first."""
    with connected(url, ca) as client:
        print_rows(_VERSION, list(client.list_versions(session_id)), as_json)


def history(session_id: SessionId, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Lists which version acted, since when, by whom and why."""
    with connected(url, ca) as client:
        print_rows(_ENTRY, list(client.list_promotions(session_id)), as_json)


def promote(
    session_id: SessionId, version: Number, reason: Reason, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False
) -> None:
    """Makes a version act; refused while one is pinned."""
    with connected(url, ca) as client:
        print_rows(_ACTING, [client.promote(session_id, version, reason=reason)], as_json)


def rollback(
    session_id: SessionId, reason: Reason, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False
) -> None:
    """Makes act what acted before the active version did."""
    with connected(url, ca) as client:
        print_rows(_ACTING, [client.roll_back(session_id, reason=reason)], as_json)


def pin(
    session_id: SessionId,
    reason: Reason,
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", min=1, help="Number of the version; the active one if left out."),
    ] = None,
    url: Url = DEFAULT_URL,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Makes a version act and keeps it, whatever is published."""
    with connected(url, ca) as client:
        print_rows(_ACTING, [client.pin(session_id, version, reason=reason)], as_json)


def unpin(session_id: SessionId, reason: Reason, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Lets what is published next act."""
    with connected(url, ca) as client:
        print_rows(_ACTING, [client.unpin(session_id, reason=reason)], as_json)
