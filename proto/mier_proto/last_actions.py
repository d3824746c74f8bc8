"""A session's last actions, at the server and at the edge: what a hold repeats, and what a limited rate counts from.

They are kept by episode and step, a few of them, so that a retry of a step is limited from the same step before it as
the first call was: a retry repeats its action. They are in memory alone: acting writes nothing.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class LastActions:
    """Of one session."""

    def __init__(self, steps: int = 8) -> None:
        """`steps` that may be asked for again, late, and still find the step before them."""
        self._steps = steps
        self._by_step: OrderedDict[tuple[int, int], FloatArray] = OrderedDict()
        self.latest: FloatArray | None = None
        """[action_dim], what was answered last."""

    def remember(self, episode: int | None, step: int | None, action: FloatArray) -> None:
        """action [action_dim] was answered; a later answer to the same step takes its place."""
        self.latest = action.copy()  # it may be a row of a larger array
        if episode is None or step is None:
            return
        self._by_step[episode, step] = self.latest
        self._by_step.move_to_end((episode, step))
        if len(self._by_step) > self._steps:
            self._by_step.popitem(last=False)

    def before(self, episode: int | None, step: int | None) -> FloatArray | None:
        """[action_dim], what was answered for the step before that one, if it is known."""
        return None if episode is None or step is None else self._by_step.get((episode, step - 1))
