"""Use case: reading transitions back, in the order of storing, a page at a time.

A page is arrays until its transport makes bytes of it. JSON is work for a thread: no list of 65 000 numbers is made on
the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mier_service.data.storage import Storage
from mier_service.offload import BoundedPool
from mier_service.pages import decode_place, encode_place, require_page_size
from mier_service.store import session_rows, transition_pages
from mier_service.transition_matrix import FloatArray, RowLayout, TransitionBatch

MAX_PAGE_BYTES = 256 * 1024
"""Of values, as float32; as JSON they are five times as many."""
MAX_RUNS = 64
"""Each has a cost of its own, which would keep the event loop where many episodes are stored step by step in turn."""


@dataclass(frozen=True)
class RecordedPage:
    """Some transitions of a session."""

    layout: RowLayout
    runs: list[TransitionBatch]
    """In the order of storing; a new one where the next step stored does not go on with the last."""
    next_page_token: str
    """Empty: there are no more."""

    def fields(self, run: TransitionBatch) -> tuple[FloatArray, ...]:
        """observation [n, o], action [n, a], reward [n], next_observation [n, o], terminated [n], truncated [n]"""
        observation, action, reward, following, terminated, truncated = self.layout.split(run.rows)
        return observation, action, reward[:, 0], following, terminated[:, 0], truncated[:, 0]


class Recorded:
    """What a session has stored."""

    def __init__(self, storage: Storage, pool: BoundedPool) -> None:
        self._storage = storage
        self._pool = pool

    async def transitions(
        self, session_id: str, page_size: int, page_token: str, one_run: bool = False
    ) -> RecordedPage:
        """At most `page_size` transitions, no more than MAX_PAGE_BYTES of them, in MAX_RUNS runs. `one_run`: the page
        ends where the next step stored does not go on with the last, or another version chose the action."""
        size, start = require_page_size(page_size), decode_place(page_token)
        return await self._pool.run(self._page, session_id, size, start, one_run)

    def _page(self, session_id: str, size: int, start: transition_pages.Place, one_run: bool) -> RecordedPage:
        with self._storage.store.read() as c:
            environment = session_rows.get_session(c, session_id).environment
            layout = RowLayout(environment.observation_dim, environment.action_dim)
            steps = max(1, min(size, MAX_PAGE_BYTES // (4 * layout.width)))
            runs, following = transition_pages.page(c, session_id, layout, start, steps)
            fewer = _alike(runs[:1]) if one_run else sum(run.count for run in runs[:MAX_RUNS])
            if fewer < sum(run.count for run in runs):
                runs, following = transition_pages.page(c, session_id, layout, start, fewer)
        return RecordedPage(layout, runs, encode_place(following))


def _alike(runs: list[TransitionBatch]) -> int:
    """How many steps of the only run one version chose, from the first on."""
    versions = runs[0].policy_version if runs else np.zeros(0, np.int64)
    return len(versions) if (versions == versions[:1]).all() else int(np.argmin(versions == versions[0]))
