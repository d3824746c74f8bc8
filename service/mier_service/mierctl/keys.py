"""`mierctl keys`: makes, lists and revokes bearer keys. A running service notices within its --poll-every-s (0.1 s)."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Annotated, Any

import typer

from mier_service.access.keys import ApiKey, Scope, hash_of, new_key
from mier_service.mierctl.data_folder import DEFAULT_DATA, Data, StoreUrl, open_store
from mier_service.mierctl.output import Json, Refused, note, print_json, print_table, time_text
from mier_service.store import api_key_rows, session_rows, usage_rows

app = typer.Typer(help="Bearer keys: who may call the service.", no_args_is_help=True)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MAX_LIFE = timedelta(days=36_500)


def _life(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    life = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < life <= _MAX_LIFE:
        raise typer.BadParameter(f"expected a time such as 12h or 90d (s, m, h, d; above 0), got {text!r}")
    return life


@app.command()
def create(
    scope: Annotated[Scope, typer.Option(help="act: act and read; adapt: also learn; admin: everything.")],
    name: Annotated[str, typer.Option(help="What to call it in lists.")] = "",
    session: Annotated[str | None, typer.Option(help="Id of the only session that it may see and touch.")] = None,
    expires_in: Annotated[
        timedelta | None, typer.Option(parser=_life, metavar="TIME", help="Such as 12h or 90d; for ever if left out.")
    ] = None,
    data: Data = DEFAULT_DATA,
    store_url: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Makes a key and prints it: the only time it is shown. --data is made if it is not there."""
    text, key_id = new_key()
    now_s = time.time()
    key = ApiKey(
        id=key_id,
        secret_hash=hash_of(text),
        scope=scope,
        name=name,
        session_id=session,
        create_time_s=now_s,
        expire_time_s=None if expires_in is None else now_s + expires_in.total_seconds(),
        revoke_time_s=None,
    )
    with open_store(data, store_url, make=True) as store, store.write() as c:
        if session is not None:
            session_rows.require_session(c, session)
        api_key_rows.add(c, key)
    if as_json:
        print_json({"key": text, **_json(key, now_s)})
    else:
        print(text)
        note(f"key {key_id} of {data}, scope {scope}: keep it now, it is not shown again")


@app.command("list")
def list_keys(data: Data = DEFAULT_DATA, store_url: StoreUrl = None, as_json: Json = False) -> None:
    """Lists all keys there ever were, oldest first, with what each has opened and stored; never their secrets."""
    with open_store(data, store_url) as store, store.read() as c:
        now_s = time.time()
        rows = [
            _json(key, now_s)
            | {
                "sessions": session_rows.count_sessions(c, key.id),
                "stored_bytes": usage_rows.stored_bytes(c, key.id),
            }
            for key in api_key_rows.all_keys(c)
        ]
    if as_json:
        print_json(rows)
    else:
        head = ["id", "state", "scope", "session_id", "name", "create_time", "expire_time", "revoke_time"]
        head += ["sessions", "stored_bytes"]
        print_table(head, [[str(row[column] or "-") for column in head] for row in rows])


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As listed; also the middle of the key, mier_ID_...")],
    data: Data = DEFAULT_DATA,
    store_url: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Ends a key for good. One that was revoked before stays so."""
    now_s = time.time()
    try:
        with open_store(data, store_url) as store, store.write() as c:
            key = api_key_rows.revoke(c, key_id, now_s)
    except api_key_rows.KeyNotFound:
        raise Refused(f"expected the id of a key, got {key_id[:40]!r}: `mierctl keys list` shows them") from None
    if as_json:
        print_json(_json(key, now_s))
    else:
        note(f"key {key.id} is revoked since {time_text(key.revoke_time_s)}")


def _json(key: ApiKey, now_s: float) -> dict[str, Any]:
    state = "revoked" if key.revoke_time_s is not None else "expired" if key.expired(now_s) else "good"
    return {
        "id": key.id,
        "state": state,
        "scope": key.scope.value,
        "session_id": key.session_id,
        "name": key.name,
        "create_time": time_text(key.create_time_s),
        "expire_time": time_text(key.expire_time_s),
        "revoke_time": time_text(key.revoke_time_s),
    }
