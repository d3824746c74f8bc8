"""One step of a session that follows its task, as values: what it goes on from and rows in, what is written out.

The service takes it when something was stored; a replay takes it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from mier.following import Followed, Following, follow
from mier.warm_start import policy_context_after
from mier_service.data.checkpoints import HeldCheckpoint
from mier_service.transition_matrix import FloatArray, RowLayout

MAX_FOLLOWED_STEPS = 2_000
"""The newest transitions of the task that a context is found from: ten episodes of the bundled checkpoints' length."""


@dataclass(frozen=True)
class Step:
    """What a step came to."""

    found: Followed
    policy_context: list[float]
    following_json: str
    """To go on from; its rows are counted from the first of the task's transitions."""


def take_step(
    held: HeldCheckpoint, layout: RowLayout, following_json: str | None, rows: FloatArray, before: int
) -> Step | None:
    """None where nothing can be said yet.

    Args:
        following_json: what the step before came to; None: begin.
        rows: [n, width], the newest `MAX_FOLLOWED_STEPS` of the task's transitions.
        before: so many of its transitions are older than these.

    Raises:
        NotFinite: they lead to no finite context.
    """
    state = None if following_json is None else Following.from_json(json.loads(following_json))
    if state is not None:
        state = None if state.rows < before else replace(state, rows=state.rows - before)
    known = 0 if state is None else state.rows
    *_, terminated, truncated = layout.split(rows[known:])
    ended = bool(terminated.any() or truncated.any())
    transitions = layout.transitions(rows)
    found = follow(held.checkpoint.agent, state, transitions, episode_ended=ended)
    if found is None:
        return None
    own = policy_context_after(held.checkpoint, found.adaptation, transitions)
    reached = replace(found.state, rows=found.state.rows + (0 if found.changed else before))
    return Step(found, [float(x) for x in own], json.dumps(reached.to_json()))
