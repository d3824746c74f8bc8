"""One row that is written to find out whether the store can be written. Works inside the caller's transaction."""

from __future__ import annotations

from sqlalchemy import Connection, insert, update

from mier_service.store.schema import probe

_ROW = 1


def write(c: Connection, now_s: float) -> None:
    """Another value each time: an equal one need not reach the disk."""
    if c.execute(update(probe).where(probe.c.row == _ROW).values(time_s=now_s)).rowcount == 0:
        c.execute(insert(probe).values(row=_ROW, time_s=now_s))
