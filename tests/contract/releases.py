"""What the first release left behind (tests/contract/first_release), as values."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("first_release")


@dataclass(frozen=True)
class Exchange:
    """A request, and what the first release replied."""

    method: str
    path: str
    body: Any
    key: str | None
    status: int
    reply: Any


_recorded = json.loads((FOLDER / "exchanges.json").read_text())
EXCHANGES = [Exchange(**item) for item in _recorded["exchanges"]]
SESSION, OPERATION, CANCELLED = _recorded["session"], _recorded["operation"], _recorded["cancelled"]
OTHER_SESSION = _recorded["other"]


def make_data_folder(data: Path, now_s: float) -> None:
    """The store that it left; `now_s` is when its keys were used, since old ones are forgotten."""
    shutil.copytree(FOLDER / "data", data)
    with closing(sqlite3.connect(data / "mier.sqlite3")) as database:
        database.executescript((FOLDER / "store.sql").read_text())
        with database:
            database.execute("UPDATE idempotency_keys SET create_time_s = ?", (now_s,))


def tables(data: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, by name."""
    with closing(sqlite3.connect(data / "mier.sqlite3")) as database:
        database.row_factory = sqlite3.Row
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [dict(row) for row in database.execute(f"SELECT * FROM {name}")] for name in names}


def holds(now: Any, then: Any) -> bool:
    """Whether `now` says all that `then` did, the same values under the same names; it may say more."""
    if isinstance(then, Mapping):
        return isinstance(now, Mapping) and all(name in now and holds(now[name], then[name]) for name in then)
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(holds, now, then))
    return type(now) is type(then) and bool(now == then)


def reads_alike(now: Any, then: Any) -> bool:
    """The same of names and kinds of values, whatever the values."""
    if isinstance(then, Mapping):
        return isinstance(now, Mapping) and all(name in now and reads_alike(now[name], then[name]) for name in then)
    if isinstance(then, list):
        return isinstance(now, list) and all(reads_alike(item, then[0]) for item in now if then)
    return then is None or type(now) is type(then) or {type(now), type(then)} == {int, float}
