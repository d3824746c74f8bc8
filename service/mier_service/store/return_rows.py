"""What episodes came to, and which policy it was. Works inside the caller's transaction.

An episode counts once all its steps are there, from step 0 to the first one that ended it: a fall, or the horizon. One
that was cut short otherwise says nothing of the policy. It is its policy's if every step was chosen by the same
weights, and the present task's if its transitions are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, Select, func, insert, select, update

from mier.intervals import interval_of
from mier_service.store import transition_rows
from mier_service.store.schema import episode_returns as returns
from mier_service.store.schema import versions
from mier_service.transition_matrix import RowLayout, TransitionBatch
from mier_service.values import ReturnsValue


class Ended(NamedTuple):
    """A whole episode."""

    episode: int
    total: float
    weights_hash: str | None
    """None: several policies had a part in it, or none did."""


def note_end(
    c: Connection, session_id: str, layout: RowLayout, batch: TransitionBatch, horizon_steps: int, stored: int
) -> Ended | None:
    """Writes down what the episode of a batch came to, if that made it whole. The batch is appended already; `stored`:
    transitions that the session holds with it."""
    *_, terminated, truncated = layout.split(batch.rows)
    steps = batch.first_step + np.arange(1, batch.count + 1)
    ends = steps[(terminated[:, 0] > 0) | ((truncated[:, 0] > 0) & (steps >= horizon_steps))]
    key = (returns.c.session_id == session_id, returns.c.episode == batch.episode)
    known = c.execute(select(returns.c.steps, returns.c.total).where(*key)).one_or_none()
    if known is not None and known.total is not None:
        return None
    # The end may have come before steps that it ends.
    lengths = [*ends[:1].tolist(), *([] if known is None else [known.steps])]
    if not lengths:
        return None
    length = min(lengths)
    whole = transition_rows.episode(c, session_id, layout, batch.episode, length)
    row: dict[str, Any] = {"steps": length, "first_transition": max(0, stored - length), "policy_version": 0}
    if whole is not None:
        rows, chosen_by = whole
        numbers = sorted(set(chosen_by.tolist()))
        row["total"] = float(layout.split(rows)[2].astype(np.float64).sum())
        row["weights_hash"] = _weights_of(c, session_id, numbers)
        row["policy_version"] = numbers[0] if len(numbers) == 1 else 0
    if known is None:
        c.execute(insert(returns).values(session_id=session_id, episode=batch.episode, **row))
    else:
        c.execute(update(returns).where(*key).values(**row))
    return Ended(batch.episode, row["total"], row["weights_hash"]) if whole is not None else None


def _weights_of(c: Connection, session_id: str, numbers: list[int]) -> str | None:
    """The one hash of these versions."""
    if 0 in numbers:
        return None
    v = versions.c
    found = c.execute(
        select(v.weights_hash).where(v.session_id == session_id, v.number.in_(numbers)).distinct()
    ).scalars()
    hashes = list(found)
    return hashes[0] if len(hashes) == 1 else None


def of_weights(c: Connection, session_id: str, weights_hash: str, task_start: int) -> list[float]:
    """Returns of the present task."""
    return list(c.execute(_of_weights(select(returns.c.total), session_id, weights_hash, task_start)).scalars())


def count_of_weights(c: Connection, session_id: str, weights_hash: str, task_start: int) -> int:
    """How many there are."""
    return int(c.execute(_of_weights(select(func.count()), session_id, weights_hash, task_start)).scalar_one())


def _of_weights(what: Select[Any], session_id: str, weights_hash: str, task_start: int) -> Select[Any]:
    r = returns.c
    mine = what.where(r.session_id == session_id, r.weights_hash == weights_hash)
    return mine.where(r.first_transition >= task_start)  # it has a hash, so it is whole


def of_versions(c: Connection, session_id: str, task_start: int, numbers: list[int]) -> dict[int, ReturnsValue]:
    """Of those of these versions that have whole episodes of their own in the present task."""
    r = returns.c
    statement = (
        select(r.policy_version, func.count(), func.avg(r.total), func.sum(r.total * r.total))
        .where(r.session_id == session_id, r.first_transition >= task_start, r.total.is_not(None))
        .where(r.policy_version.between(min(numbers, default=0), max(numbers, default=0)))
        .group_by(r.policy_version)
    )
    return {number: _value(*found) for number, *found in c.execute(statement) if number}


def _value(episodes: int, mean: float, squares: float) -> ReturnsValue:
    variance = max(0.0, squares - episodes * mean * mean) / max(1, episodes - 1)
    _, low, high = interval_of(mean, math.sqrt(variance), episodes)
    one = episodes < 2
    return ReturnsValue(episodes=episodes, mean=mean, low=None if one else low, high=None if one else high)
