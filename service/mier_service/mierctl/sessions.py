"""`mierctl sessions`: what a running service holds, and whether it learns."""

from __future__ import annotations

from typing import Annotated

import typer

from mier_client import SessionMode
from mier_service.mierctl.output import Json, Refused, note
from mier_service.mierctl.remote import DEFAULT_URL, Ca, SessionId, Url, connected, print_one, print_rows

app = typer.Typer(help="Sessions of a running service, by its URL.", no_args_is_help=True)
_COLUMNS = ["id", "checkpoint", "state", "mode", "active_version", "pinned", "transitions_count", "create_time"]
_MODES = [mode.value for mode in SessionMode if mode is not SessionMode.UNRECOGNIZED]


@app.command("list")
def list_sessions(url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Lists all sessions that the key may see, oldest first."""
    with connected(url, ca) as client:
        print_rows(_COLUMNS, list(client.list_sessions()), as_json)


@app.command()
def show(session_id: SessionId, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Prints all that is known of a session."""
    with connected(url, ca) as client:
        print_one(client.get_session(session_id), as_json)


@app.command()
def pause(session_id: SessionId, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Freezes learning; acting and recording go on."""
    with connected(url, ca) as client:
        print_rows(_COLUMNS, [client.pause(session_id)], as_json)


@app.command()
def resume(session_id: SessionId, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Lets learning go on."""
    with connected(url, ca) as client:
        print_rows(_COLUMNS, [client.resume(session_id)], as_json)


@app.command()
def mode(
    session_id: SessionId,
    wanted: Annotated[str, typer.Argument(metavar="MODE", help=f"One of {', '.join(_MODES)}.")],
    url: Url = DEFAULT_URL,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Says whether a session adapts by itself, from its next transitions on."""
    if wanted not in _MODES:
        raise typer.BadParameter(f"expected one of {', '.join(_MODES)}, got {wanted!r}", param_hint="MODE")
    with connected(url, ca) as client:
        print_rows(_COLUMNS, [client.set_mode(session_id, SessionMode(wanted))], as_json)


@app.command()
def delete(
    session_id: SessionId,
    yes: Annotated[bool, typer.Option("--yes", help="Really.")] = False,
    url: Url = DEFAULT_URL,
    ca: Ca = None,
) -> None:
    """Deletes a session with its transitions, versions and operations; cancels what is running."""
    if not yes:
        raise Refused(f"deleting {session_id} cannot be undone: say --yes, or keep a copy first (mier-data export)")
    with connected(url, ca) as client:
        client.delete_session(session_id)
    note(f"session {session_id} is deleted")
