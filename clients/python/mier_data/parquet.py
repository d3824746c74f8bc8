"""A session's transitions as one Parquet file: a row for each, in the order of storing. Streamed, page by page.

The file is there once it is whole: until then it has another name. What the session is, is in the schema's metadata,
under `mier`, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mier_client.transport import TransitionBatch
from mier_client.values import Session
from mier_data.about import about

_ROW_GROUP = 65_536
"""Transitions; what is in memory at once."""


def schema(session: Session) -> pa.Schema:
    environment = session.environment
    observation = pa.list_(pa.float32(), environment.observation_dim)
    fields = [
        ("episode", pa.int64()),
        ("step", pa.int64()),
        ("policy_version", pa.int64()),
        ("observation", observation),
        ("action", pa.list_(pa.float32(), environment.action_dim)),
        ("reward", pa.float32()),
        ("next_observation", observation),
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
    ]
    columns = [pa.field(name, kind, nullable=False) for name, kind in fields]
    return pa.schema(columns, {"mier": json.dumps(about(session))})


def write(path: Path, session: Session, runs: Iterable[TransitionBatch]) -> int:
    """How many transitions it has. Replaces a file that is there; OSError where it cannot be written."""
    layout, count = schema(session), 0
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with pq.ParquetWriter(unfinished, layout, compression="zstd") as writer:
            for group in _groups(runs):
                table = pa.concat_tables([_table(run, layout) for run in group])
                writer.write_table(table, row_group_size=_ROW_GROUP)
                count += table.num_rows
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _groups(runs: Iterable[TransitionBatch]) -> Iterator[list[TransitionBatch]]:
    """So many runs that a group of rows is worth it."""
    group, steps = [], 0
    for run in runs:
        group.append(run)
        steps += len(run.reward)
        if steps >= _ROW_GROUP:
            yield group
            group, steps = [], 0
    if group:
        yield group


def _table(run: TransitionBatch, layout: pa.Schema) -> pa.Table:
    count = len(run.reward)
    columns: list[Any] = [
        np.full(count, run.episode),
        run.first_step + np.arange(count),
        np.broadcast_to(np.array(run.policy_version), count),
        _vectors(run.observation),
        _vectors(run.action),
        run.reward,
        _vectors(run.next_observation),
        run.terminated,
        run.truncated,
    ]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, layout, strict=True)], layout)


def _vectors(rows: npt.NDArray[np.float32]) -> pa.Array:
    """[n, dim] as n lists of one length, without copying."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
