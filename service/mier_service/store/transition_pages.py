"""Transitions read back: in the order of storing, so many at a time, whatever the sizes in which they came.

A place is (row, skip): the batch of that row, without its first `skip` steps. Rows are only ever added and never
changed, so a place stays what it is. Of the blobs only what the page holds is read.
"""

from __future__ import annotations

import numpy as np
from sqlalchemy import Connection, Integer, LargeBinary, case, cast, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from mier_service.store import transition_rows
from mier_service.store.schema import transition_batches as batches
from mier_service.transition_matrix import RowLayout, TransitionBatch

Place = tuple[int, int]


def page(
    c: Connection, session_id: str, layout: RowLayout, start: Place, steps: int
) -> tuple[list[TransitionBatch], Place | None]:
    """At most `steps` transitions from `start` on, as runs of consecutive steps of one episode, and where the next page
    starts (None: there is none)."""
    of_session = batches.c.session_id == session_id
    ahead = c.execute(
        select(batches.c.row, batches.c.count)
        .where(of_session, batches.c.row >= start[0])
        .order_by(batches.c.row)
        .limit(steps + 2)  # the first may be used up, and the last tells that there is more
    )
    taken: dict[int, tuple[int, int]] = {}  # by row: how many steps came already, and how many are of this page
    left, following = steps, None
    for row, count in ahead:
        skip = start[1] if row == start[0] else 0
        part = max(0, min(count - skip, left))
        left -= part
        if part:
            taken[row] = (skip, part)
        if skip + part < count:
            following = (row, skip + part)
            break
    if not taken:
        return [], None
    first = min(taken)
    found = c.execute(
        select(
            batches.c.row,
            batches.c.episode,
            batches.c.first_step,
            _part(batches.c.rows, 4 * layout.width, first, taken[first][0], steps),
            _part(batches.c.policy_versions, 8, first, taken[first][0], steps),
        )
        .where(of_session, batches.c.row.between(first, max(taken)))
        .order_by(batches.c.row)
    )
    parts = []
    for row, episode, first_step, rows, versions in found:
        skip, count = taken[row]
        matrix, version = transition_rows.decode(rows, versions, layout)
        parts.append(TransitionBatch(episode, first_step + skip, matrix[:count], version[:count]))
    return _runs(parts), following


def _part(blob: ColumnElement[bytes], step_bytes: int, first: int, skip: int, steps: int) -> ColumnElement[bytes]:
    """What a page may need of a blob with so many bytes for each step; the row `first` is without `skip` of them."""
    begin = case((batches.c.row == first, literal(1 + skip * step_bytes)), else_=literal(1))
    return func.substr(blob, cast(begin, Integer), cast(literal(steps * step_bytes), Integer), type_=LargeBinary)


def _runs(parts: list[TransitionBatch]) -> list[TransitionBatch]:
    """Neighbours that go on with each other are one."""
    groups: list[list[TransitionBatch]] = []
    for part in parts:
        before = groups[-1][-1] if groups else None
        if before and (before.episode, before.first_step + before.count) == (part.episode, part.first_step):
            groups[-1].append(part)
        else:
            groups.append([part])
    return [
        TransitionBatch(
            group[0].episode,
            group[0].first_step,
            np.concatenate([part.rows for part in group]),
            np.concatenate([part.policy_version for part in group]),
        )
        for group in groups
    ]
