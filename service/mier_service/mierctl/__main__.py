"""The command `mierctl`: one file for each subcommand or group of them, joined here.

Exit status: 0 done; 1 refused or failed, with the reason in one line on standard error; 2 the command line is wrong.
`replay` has its own.
"""

from __future__ import annotations

import sys

import typer

from mier_client import MierError
from mier_service.config import CannotStart
from mier_service.data.backups import BackupError
from mier_service.errors import ServiceError
from mier_service.mierctl import bundles, keys, operations, sessions, versions
from mier_service.mierctl.backup import backup
from mier_service.mierctl.lineage import add_lineage
from mier_service.mierctl.output import Refused
from mier_service.mierctl.purge import purge
from mier_service.mierctl.replay import replay
from mier_service.mierctl.restore import restore

app = typer.Typer(
    name="mierctl",
    help="Looks after a service: its data folder (all but purge also while the service runs), or by its URL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(backup)
app.command()(restore)
app.command()(purge)
app.command()(replay)
app.add_typer(keys.app, name="keys")
app.add_typer(sessions.app, name="sessions")
app.add_typer(operations.app, name="operations")
add_lineage(versions.app)
app.add_typer(versions.app, name="versions")
app.add_typer(bundles.app, name="bundles")


def main() -> None:
    """The command line."""
    try:
        app()
    except (Refused, BackupError, CannotStart, MierError) as error:
        _fail(str(error))
    except ServiceError as error:
        _fail(error.detail)


def _fail(message: str) -> None:
    print(f"mierctl: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
