"""`mierctl purge`: deletes sessions for good, while no service runs on the folder."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mier_service.data import purging
from mier_service.data.data_lock import lock_data
from mier_service.data.storage import Storage
from mier_service.mierctl.data_folder import DEFAULT_DATA, Data, FilesUrl, StoreUrl, read_copy, require_data_folder
from mier_service.mierctl.output import Refused, note
from mier_service.store import session_rows
from mier_service.store.store import Store

_DAY_S = 24 * 3600.0
_ALL = 2**31


def purge(
    session: Annotated[
        list[str] | None, typer.Option(help="Id of a session to delete; may be given several times.")
    ] = None,
    idle_days: Annotated[
        float | None,
        typer.Option(help="Delete those that nobody used for so many days and that are not being fine-tuned."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which; nothing is written, and a service may be running.")
    ] = False,
    data: Data = DEFAULT_DATA,
    store_url: StoreUrl = None,
    files_url: FilesUrl = None,
) -> None:
    """Deletes sessions with all their data, so that no byte of it stays in the store; no service may be running."""
    if bool(session) == (idle_days is not None):
        raise Refused("expected either --session with ids or --idle-days, and not both: say which sessions are to go")
    if idle_days is not None and not idle_days > 0:
        raise Refused(f"expected --idle-days above 0, got {idle_days:g}")
    if dry_run:
        with read_copy(data, store_url) as store:
            chosen = _chosen(store, session or [], idle_days)
        for session_id in chosen:
            print(session_id)
        note(f"{len(chosen)} sessions would be deleted")
        return
    if not store_url:
        require_data_folder(data)
    lock = lock_data(data)
    if lock is None:
        raise Refused(
            f"a service is running on {data}: stop it, or delete sessions by its own calls (DELETE /sessions/ID, "
            "--keep-idle-sessions-s)"
        )
    with lock:
        storage = Storage(data, connections=1, clock=time.time, store_url=store_url, files_url=files_url)
        try:
            storage.prepare()
            _purge(storage, _chosen(storage.store, session or [], idle_days))
        finally:
            storage.close()


def _chosen(store: Store, session: list[str], idle_days: float | None) -> list[str]:
    """Ids, each once; refuses one that is not there."""
    with store.read() as c:
        for session_id in session:
            session_rows.require_session(c, session_id)
        if idle_days is None:
            return list(dict.fromkeys(session))
        return session_rows.unused_since(c, time.time() - idle_days * _DAY_S, _ALL)


def _purge(storage: Storage, chosen: list[str]) -> None:
    for session_id in chosen:
        print(session_id)
        with storage.store.write() as c:
            remains = purging.remove_rows(c, session_id)
        purging.remove_files(storage, remains)
    if chosen:
        storage.store.compact()
    note(f"{len(chosen)} sessions deleted")
