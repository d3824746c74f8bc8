"""Transitions: appended once, keyed by (session, episode, step). Works inside the caller's transaction.

Stored ranges of one episode never overlap, so each step exists once. A batch that overlaps stored ranges is cut:
what is stored already must be equal, the rest is appended.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, func, insert, select

from mier_service.errors import Reason, ServiceError
from mier_service.store.schema import transition_batches as batches
from mier_service.transition_matrix import RowLayout, TransitionBatch
from mier_service.values import WindowValue

_ROW = np.dtype("<f4")
_VERSION = np.dtype("<i8")


class Appended(NamedTuple):
    """What was new of a batch."""

    steps: int
    rows: int
    """Of the table."""
    content_bytes: int


def append(c: Connection, session_id: str, layout: RowLayout, batch: TransitionBatch) -> Appended:
    """Appends the steps that are new. Refuses a step that is stored with another content."""
    first, stop = batch.first_step, batch.first_step + batch.count
    overlapping = c.execute(
        select(batches)
        .where(
            batches.c.session_id == session_id,
            batches.c.episode == batch.episode,
            batches.c.first_step < stop,
            batches.c.first_step + batches.c.count > first,
        )
        .order_by(batches.c.first_step)
    ).all()
    parts: list[TransitionBatch] = []
    start = 0  # first row of the batch not dealt with
    for old in overlapping:
        low, high = max(old.first_step, first), min(old.first_step + old.count, stop)
        rows, versions = _decode(old.rows, old.policy_versions, layout)
        known = TransitionBatch(batch.episode, old.first_step, rows, versions)
        _require_equal(batch.part(low - first, high - first), known.part(low - old.first_step, high - old.first_step))
        parts.append(batch.part(start, low - first))
        start = high - first
    parts.append(batch.part(start, batch.count))
    new = [part for part in parts if part.count]
    return Appended(sum(part.count for part in new), len(new), sum(_insert(c, session_id, part) for part in new))


def count(c: Connection, session_id: str, window: WindowValue) -> int:
    """Steps of the window."""
    where: list[ColumnElement[bool]] = [batches.c.session_id == session_id]
    if window.from_episode is not None:
        where.append(batches.c.episode >= window.from_episode)
    stored = int(c.execute(select(func.coalesce(func.sum(batches.c.count), 0)).where(*where)).scalar_one())
    return stored if window.last_steps is None else min(stored, window.last_steps)


def read(
    c: Connection, session_id: str, layout: RowLayout, window: WindowValue, last_batch_row: int | None = None
) -> npt.NDArray[np.float32]:
    """Rows [n, width] of the window in the order of storing; only batches up to `last_batch_row`, if given."""
    where: list[ColumnElement[bool]] = [batches.c.session_id == session_id]
    if window.from_episode is not None:
        where.append(batches.c.episode >= window.from_episode)
    if last_batch_row is not None:
        where.append(batches.c.row <= last_batch_row)
    if window.last_steps is None:
        blobs = c.execute(select(batches.c.rows).where(*where).order_by(batches.c.row)).scalars().all()
        return _matrix(list(blobs), layout)
    newest: list[bytes] = []
    missing = window.last_steps
    statement = select(batches.c.rows, batches.c.count).where(*where).order_by(batches.c.row.desc())
    for blob, count in c.execute(statement):
        newest.append(blob)
        missing -= count
        if missing <= 0:
            break
    return _matrix(newest[::-1], layout)[-window.last_steps :]


def episode(
    c: Connection, session_id: str, layout: RowLayout, number: int, steps: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | None:
    """Rows [steps, width] of an episode's first steps, and the versions that chose them; None while one lacks."""
    statement = select(batches.c.first_step, batches.c.rows, batches.c.policy_versions).where(
        batches.c.session_id == session_id, batches.c.episode == number, batches.c.first_step < steps
    )
    stored = c.execute(statement.order_by(batches.c.first_step)).all()
    following = 0
    for row in stored:
        if row.first_step != following:
            return None
        following += len(row.policy_versions) // _VERSION.itemsize
    if following < steps:
        return None
    versions = np.frombuffer(b"".join(row.policy_versions for row in stored), _VERSION).astype(np.int64)
    return _matrix([row.rows for row in stored], layout)[:steps], versions[:steps]


def last_batch_row(c: Connection, session_id: str) -> int:
    """Marks the newest batch; 0 if there is none."""
    return int(c.execute(select(func.max(batches.c.row)).where(batches.c.session_id == session_id)).scalar() or 0)


def _insert(c: Connection, session_id: str, batch: TransitionBatch) -> int:
    """How many bytes it holds."""
    rows = batch.rows.astype(_ROW).tobytes()
    policy_versions = batch.policy_version.astype(_VERSION).tobytes()
    c.execute(
        insert(batches).values(
            session_id=session_id,
            episode=batch.episode,
            first_step=batch.first_step,
            count=batch.count,
            rows=rows,
            policy_versions=policy_versions,
        )
    )
    return len(rows) + len(policy_versions)


def _decode(rows: bytes, versions: bytes, layout: RowLayout) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    return (
        np.frombuffer(rows, _ROW).reshape(-1, layout.width).astype(np.float32),
        np.frombuffer(versions, _VERSION).astype(np.int64),
    )


def _matrix(blobs: list[bytes], layout: RowLayout) -> npt.NDArray[np.float32]:
    return np.frombuffer(b"".join(blobs), _ROW).reshape(-1, layout.width).astype(np.float32)


def _require_equal(sent: TransitionBatch, known: TransitionBatch) -> None:
    differs = (sent.rows != known.rows).any(1) | (sent.policy_version != known.policy_version)
    if differs.any():
        step = sent.first_step + int(np.argmax(differs))
        raise ServiceError(
            Reason.TRANSITION_CONFLICT,
            f"step {step} of episode {sent.episode} is stored with another content: resend it unchanged, "
            "or use a new episode number; nothing of this batch was stored",
        )
