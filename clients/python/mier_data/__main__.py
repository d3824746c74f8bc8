"""The command `mier-data`.

Exit status: 0 done; 1 refused or failed, with the reason in one line on standard error; 2 the command line is wrong.
Results are on standard output, progress on standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

try:
    import typer

    from mier_data import minari_files, parquet
except ModuleNotFoundError as error:
    sys.exit(f"mier-data: {error.name} is not installed: pip install 'mier[data]'")

from mier_client import Client, MierError, Session, Tls
from mier_data.episodes import pieces
from mier_data.progress import counted
from mier_data.refused import Refused

_SUBMITTED_STEPS, _SUBMITTED_BYTES = 1000, 256 * 1024
"""In one call, at most; of values, which are five times as many bytes as JSON. Services take 16 MiB by default."""

app = typer.Typer(
    name="mier-data",
    help="A session's transitions as files, and data sets as transitions of a session.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
export = typer.Typer(help="Writes a session's transitions to a file.", no_args_is_help=True)
import_ = typer.Typer(help="Submits a data set's steps to a session.", no_args_is_help=True)
app.add_typer(export, name="export")
app.add_typer(import_, name="import")

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="MIER_URL",
        help="The service's, grpc(s):// or http(s)://. Its key is the environment's MIER_API_KEY.",
    ),
]
DEFAULT_URL = "grpc://127.0.0.1:50051"
Ca = Annotated[
    Path | None, typer.Option("--ca", help="PEM authority of the service's certificate, where the system has it not.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.")]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Id of the data set, such as mier/cheetah-v0.")]


@export.command("parquet")
def export_parquet(
    session_id: SessionId,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="One that is there is replaced, once the new is whole.")],
    url: Url = DEFAULT_URL,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """One row for each transition, in the order of storing."""
    with _connected(url, ca) as client:
        session = client.get_session(session_id)
        with counted(session.transitions_count) as count:
            written = parquet.write(file, session, count(client.list_transitions(session_id)))
    _print(as_json, f"{file}: {written} transitions", file=str(file), transitions=written)


@export.command("minari")
def export_minari(
    session_id: SessionId, dataset: Dataset, url: Url = DEFAULT_URL, ca: Ca = None, as_json: Json = False
) -> None:
    """A Minari data set of the session's episodes, in MINARI_DATASETS_PATH. They are in memory until it is written."""
    with _connected(url, ca) as client:
        session = client.get_session(session_id)
        with counted(session.transitions_count) as count:
            found = pieces(count(client.list_transitions(session_id)))
    if not found:
        raise Refused(f"session {session_id} has no transitions yet: there is nothing to make a data set of")
    written = minari_files.write(dataset, session, found)
    steps, episodes, path = int(written.total_steps), int(written.total_episodes), str(written.storage.data_path)
    text = f"{dataset}: {steps} transitions in {episodes} episodes, in {path}"
    _print(as_json, text, dataset=dataset, transitions=steps, episodes=episodes, path=path)


@import_.command("minari")
def import_minari(
    dataset: Dataset,
    session_id: Annotated[str | None, typer.Option("--session", help="Id of a session that is there.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Or: opens a session on this checkpoint.")] = None,
    first_episode: Annotated[int, typer.Option(min=0, help="Added to the number of every episode.")] = 0,
    url: Url = DEFAULT_URL,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Submits a Minari data set. Steps that are there already count once, so what broke off can just be repeated."""
    if (session_id is None) == (checkpoint is None):
        raise Refused("expected either --session or --checkpoint: say where the steps are to go")
    found = minari_files.read(dataset)
    with _connected(url, ca) as client:
        session = _session(client, session_id, checkpoint)
        minari_files.require_fit(found, session.environment)
        stored = duplicates = 0
        width = 2 * session.environment.observation_dim + session.environment.action_dim + 3
        steps = max(1, min(_SUBMITTED_STEPS, _SUBMITTED_BYTES // (4 * width)))
        with counted(int(found.total_steps)) as count:
            for batch in count(minari_files.batches(found, first_episode, steps)):
                done = client.submit_transitions(session.id, **vars(batch))
                stored, duplicates = stored + done.stored, duplicates + done.duplicates
    _print(
        as_json,
        f"{session.id}: {stored} transitions stored, {duplicates} were there",
        session=session.id,
        stored=stored,
        duplicates=duplicates,
    )


def _session(client: Client, session_id: str | None, checkpoint: str | None) -> Session:
    if session_id is not None:
        return client.get_session(session_id)
    assert checkpoint is not None
    return client.create_session(checkpoint)


@contextmanager
def _connected(url: str, ca: Path | None) -> Iterator[Client]:
    try:
        client = Client.connect(url, tls=None if ca is None else Tls(ca=ca))
    except ValueError as error:
        raise Refused(str(error)) from None
    with client:
        yield client


def _print(as_json: bool, text: str, **result: Any) -> None:
    print(json.dumps(result) if as_json else text)


def main() -> None:
    """The command line."""
    try:
        app()
    except (Refused, MierError, OSError) as error:
        print(f"mier-data: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
