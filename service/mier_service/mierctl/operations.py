"""`mierctl operations`: background fine-tunes of a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mier_client import Operation, OperationState
from mier_service.mierctl.output import Json, Refused, note
from mier_service.mierctl.remote import DEFAULT_URL, Ca, SessionId, Url, connected, print_one

app = typer.Typer(help="Fine-tunes of a running service, by its URL.", no_args_is_help=True)
OperationId = Annotated[str, typer.Argument(metavar="OPERATION", help="Id of the operation.")]


@app.command()
def start(
    session_id: SessionId,
    updates: Annotated[
        int | None, typer.Option(min=1, help="Gradient updates; as the checkpoint says if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all its randomness.")] = 0,
    url: Url = DEFAULT_URL,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Starts a fine-tune of a session, in the background."""
    with connected(url, ca) as client:
        print_one(client.finetune(session_id, updates=updates, seed=seed), as_json)


@app.command()
def show(operation_id: OperationId, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Prints all that is known of an operation."""
    with connected(url, ca) as client:
        print_one(client.get_operation(operation_id), as_json)


@app.command()
def watch(operation_id: OperationId, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Waits until it has ended, with a line for each change; exit status 1 if it did not succeed."""
    last = _watched(operation_id, url, ca)
    print_one(last, as_json)
    if last.state is not OperationState.SUCCEEDED:
        raise Refused(f"operation {operation_id} {last.state}: {last.error.detail if last.error else 'by request'}")


@app.command()
def cancel(operation_id: OperationId, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False) -> None:
    """Asks it to stop; it publishes nothing afterwards. One that has ended stays as it is."""
    with connected(url, ca) as client:
        print_one(client.cancel_operation(operation_id), as_json)


def _watched(operation_id: str, url: str, ca: Path | None) -> Operation:
    with connected(url, ca) as client:
        for operation in client.watch_operation(operation_id):
            note(f"{operation.state}: {operation.updates_done} of {operation.updates_total or '?'} updates")
    return operation
