"""`mierctl versions`: where each version of a session came from."""

from __future__ import annotations

import typer

from mier_service.mierctl.data_folder import DEFAULT_DATA, Data, StoreUrl, read_copy
from mier_service.mierctl.output import Json, print_json
from mier_service.mierctl.replay import Session

app = typer.Typer(
    help="Policy versions of a session: what each was made from, and which of them acts.", no_args_is_help=True
)


@app.callback()
def versions() -> None:
    """Policy versions and what each was made from."""


@app.command()
def tree(session: Session, data: Data = DEFAULT_DATA, store_url: StoreUrl = None, as_json: Json = False) -> None:
    """Prints a session's lineage: checkpoint, transitions, model contexts, settings, seeds, versions."""
    from mier_service.replaying.log import read_log  # here, so that the other commands need not wait for torch
    from mier_service.replaying.tree import lineage, lines

    with read_copy(data, store_url) as store, store.read() as c:
        log = read_log(c, session)
    if as_json:
        print_json(lineage(log))
    else:
        for line in lines(log):
            print(line)
