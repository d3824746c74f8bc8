"""All that a store holds of one session, as values: what its lineage is told from, and made again from.

Nothing of what is read is trusted yet: `Log.damaged` says which stored transitions are not what was stored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, select

from mier_service.provenance import ContextOrigin
from mier_service.store import session_rows, transition_rows
from mier_service.store.schema import model_contexts, operations, promotions, transition_batches
from mier_service.transition_matrix import FloatArray, RowLayout
from mier_service.values import ModelContextValue, SessionValue, VersionValue

_ALL = 2**31


@dataclass(frozen=True)
class Batch:
    """Where one stored batch lies."""

    row: int
    episode: int
    first_step: int
    count: int
    first: int
    """So many of the session's transitions were stored before it."""
    intact: bool | None
    """Whether it has the digest that was kept of it; None: none was kept."""

    def __str__(self) -> str:
        return f"episode {self.episode}, steps {self.first_step} to {self.first_step + self.count - 1}"


@dataclass(frozen=True)
class ContextRecord:
    """A model context as the store has it."""

    value: ModelContextValue
    origin: ContextOrigin | None
    """None of one that was inferred before that was kept."""
    following_json: str | None


@dataclass(frozen=True)
class VersionRecord:
    """A policy version as the store has it."""

    value: VersionValue
    onnx_hash: str

    @property
    def builds(self) -> list[str]:
        """See `provenance.build`; none where that was not kept."""
        listed = json.loads(self.value.made_with_json or "[]")
        return [json.dumps(item, sort_keys=True) for item in listed]


@dataclass(frozen=True)
class Log:
    """One session."""

    session: SessionValue
    batches: list[Batch]
    """In the order of storing."""
    rows: FloatArray
    """[n, width], in that order."""
    contexts: dict[int, ContextRecord]
    """By number, in order."""
    versions: dict[int, VersionRecord]
    """By number, in order."""
    operations: dict[str, Row[Any]]
    """By id, oldest first."""
    promotions: list[Row[Any]]
    """Oldest first."""

    @property
    def layout(self) -> RowLayout:
        return RowLayout(self.session.environment.observation_dim, self.session.environment.action_dim)

    @cached_property
    def _episodes(self) -> npt.NDArray[np.int64]:
        counts = [batch.count for batch in self.batches]
        return np.repeat(np.array([batch.episode for batch in self.batches], np.int64), counts)

    def used_by(self, context: ModelContextValue, origin: ContextOrigin) -> FloatArray:
        """[m, width], the transitions that a context was inferred from in one go."""
        if context.window is not None and context.window.from_episode is not None:
            stored = slice(0, origin.transitions_stored)
            return self.rows[stored][self._episodes[stored] >= context.window.from_episode]
        return self.rows[origin.first_transition(context) : origin.transitions_stored]

    def stored_by(self, last_batch_row: int) -> int:
        """Transitions in the batches up to that one."""
        return sum(batch.count for batch in self.batches if batch.row <= last_batch_row)

    def damaged(self) -> list[Batch]:
        """Batches that are not what was stored."""
        return [batch for batch in self.batches if batch.intact is False]


def read_log(c: Connection, session_id: str) -> Log:
    """Of one moment of the store; refuses an unknown session."""
    session = session_rows.get_session(c, session_id)
    width = RowLayout(session.environment.observation_dim, session.environment.action_dim).width
    batches, matrices, first = list[Batch](), [np.empty((0, width), np.float32)], 0
    t = transition_batches.c
    for row in c.execute(select(transition_batches).where(t.session_id == session_id).order_by(t.row)):
        digest = transition_rows.digest(row.episode, row.first_step, row.rows, row.policy_versions)
        intact = None if row.sha256 is None else row.sha256 == digest
        count: int = row._mapping["count"]  # a row has a method of that name
        whole = len(row.rows) == 4 * width * count
        matrix = np.frombuffer(row.rows, "<f4") if whole else np.full(width * count, np.nan)
        matrices.append(matrix.reshape(-1, width).astype(np.float32))
        batches.append(Batch(row.row, row.episode, row.first_step, count, first, intact))
        first += count
    versions, _ = session_rows.list_versions(c, session_id, 0, _ALL)
    m, o, p = model_contexts.c, operations.c, promotions.c
    contexts = c.execute(select(model_contexts).where(m.session_id == session_id).order_by(m.number))
    return Log(
        session,
        batches,
        np.concatenate(matrices),
        {row.number: _context(row) for row in contexts},
        {v.number: VersionRecord(v, session_rows.get_version(c, session_id, v.number)[1]) for v in versions},
        {row.id: row for row in c.execute(select(operations).where(o.session_id == session_id).order_by(o.row))},
        list(c.execute(select(promotions).where(p.session_id == session_id).order_by(p.row))),
    )


def _context(row: Row[Any]) -> ContextRecord:
    origin = None if row.origin_json is None else ContextOrigin.model_validate_json(row.origin_json)
    return ContextRecord(session_rows.model_context_value(row), origin, row.following_json)
