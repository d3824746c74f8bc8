"""`mierctl replay`: makes a session's contexts and versions again from its log, and says what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mier_service.config import CannotStart, bundled_checkpoints
from mier_service.errors import ServiceError
from mier_service.mierctl.data_folder import DEFAULT_DATA, Data, StoreUrl, read_copy
from mier_service.mierctl.output import Json, Refused, note

Session = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.")]
_DEFAULT_CHECKPOINTS = bundled_checkpoints()
_MISSING = 2


def replay(
    session: Session,
    checkpoints: Annotated[
        Path, typer.Option(envvar="MIER_CHECKPOINTS", help="The service's folder of checkpoints.")
    ] = _DEFAULT_CHECKPOINTS,
    data: Data = DEFAULT_DATA,
    store_url: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Makes every model context and policy version of a session again from its log, and compares. A service may run.

    Exit status: 0, all are equal (or within the tolerance that is printed, where another build or kind of CPU made
    them); 1, something differs; 2, nothing differs, but something is missing that it takes.
    """
    # Here, so that the other commands need not wait for torch.
    from mier_service.replaying.log import read_log
    from mier_service.replaying.report import report

    try:
        with read_copy(data, store_url) as store, store.read() as c:
            log = read_log(c, session)
    except (Refused, ServiceError, CannotStart) as error:
        note(f"mierctl: {error.detail if isinstance(error, ServiceError) else error}")
        raise typer.Exit(_MISSING) from None
    raise typer.Exit(report(log, checkpoints, data, as_json=as_json))
