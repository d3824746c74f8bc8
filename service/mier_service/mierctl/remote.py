"""A running service as `mierctl` asks it, by URL and key: a caller like any other, through the client.

The key is the environment's MIER_API_KEY: on a command line other users of the machine could read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from mier_client import Client, Operation, PolicyVersion, PromotionRecord, Session, Tls
from mier_service.mierctl.output import Refused, print_json, print_table

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="MIER_URL",
        show_envvar=True,
        help="The service's, grpc(s):// or http(s)://. Its key is the environment's MIER_API_KEY.",
    ),
]
DEFAULT_URL = "grpc://127.0.0.1:50051"
Ca = Annotated[
    Path | None, typer.Option("--ca", help="PEM authority of the service's certificate, where the system has it not.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the session's record.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.")]
Answer = Session | PolicyVersion | PromotionRecord | Operation


@contextmanager
def connected(url: str, ca: Path | None) -> Iterator[Client]:
    """The service; what it refuses is told by the command as it says it."""
    try:
        client = Client.connect(url, tls=None if ca is None else Tls(ca=ca))
    except ValueError as error:
        raise Refused(str(error)) from None
    with client:
        yield client


def print_rows(head: Sequence[str], answers: Sequence[Answer], as_json: bool) -> None:
    """Some of what is known of each; all of it as JSON."""
    if as_json:
        print_json([_plain(answer) for answer in answers])
    else:
        print_table(head, [[_cell(_plain(answer)[name]) for name in head] for answer in answers])


def print_one(answer: Answer, as_json: bool) -> None:
    """All that is known of it, a line each."""
    plain = _plain(answer)
    if as_json:
        print_json(plain)
        return
    width = max(map(len, plain))
    for name, value in plain.items():
        print(f"{name.ljust(width)}  {_cell(value)}")


def _plain(answer: Answer) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(answer), default=_simple))
    return plain


def _simple(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    raise TypeError(f"no JSON for {type(value).__name__}")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
