"""A store that a later release has used: neither the service nor `mierctl` touches it, and both say what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from mier_service.data.layout import DATABASE_FILE
from tests.contract import releases
from tests.contract.helpers import mierctl
from tests.contract.keys import migrate

LATER = "9999"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Brought to this release's schema, with rows, and then by a later one to its own, which has a column more."""
    folder = tmp_path / "data"
    releases.make_data_folder(folder, time.time())
    migrate(folder)
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as database, database:
        database.execute("ALTER TABLE sessions ADD COLUMN mood TEXT")
        database.execute("UPDATE alembic_version SET version_num = ?", (LATER,))
    return folder


def _require_clear(done: subprocess.CompletedProcess[str], program: str) -> None:
    """What was expected, what came, what to do: in one line, without a traceback."""
    (said,) = [line for line in done.stderr.splitlines() if line.startswith(program)]
    for words in ("expected", "or earlier", f"got schema {LATER}", "later release", "restore a backup"):
        assert words in said
    assert "Traceback" not in done.stderr + done.stdout


def test_the_service_does_not_start_on_it(data: Path, checkpoints: Path) -> None:
    """Broken on purpose: without the look at the schema first, Alembic's own error ends the program by a traceback."""
    before = releases.tables(data)
    command = [sys.executable, "-m", "mier_service", "--checkpoints", str(checkpoints), "--data", str(data)]
    done = subprocess.run(
        [*command, "--http-port", "0", "--grpc-port", "0"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    _require_clear(done, "mier-serve: ")
    assert releases.tables(data) == before


@pytest.mark.parametrize(
    "arguments", [("keys", "create", "--scope", "admin"), ("keys", "list"), ("purge", "--idle-days", "1")]
)
def test_mierctl_does_not_change_it(data: Path, arguments: tuple[str, ...]) -> None:
    before = releases.tables(data)
    done = mierctl(*arguments, "--data", data)
    assert done.returncode == 1
    assert done.stdout == ""
    _require_clear(done, "mierctl: ")
    assert releases.tables(data) == before
