"""Row 8: adapting 64 sessions at once, against one after the other."""

from __future__ import annotations

import numpy as np

from mier.adaptation import adapt, adapt_many
from mier_bench import bundled
from mier_bench.interleaving import Pace, interleave
from mier_bench.row import Row, Target, Wanted, compared, per_second, require_equal

ID = 8
SESSIONS = 64
TARGET = Target(Wanted.AT_LEAST, 1.7)
NAME = "cheetah-vel-ood"


def rows(pace: Pace) -> list[Row]:
    agent = bundled.checkpoint(NAME).agent
    model, config, known = agent.model, agent.configuration.adapt, agent.training_contexts
    gathered = bundled.trajectories(NAME, bundled.tasks_of(NAME, SESSIONS), 2)
    sessions = [gathered.rows(i) for i in range(SESSIONS)]

    def one_by_one() -> list[float]:
        return [adapt(model, rows, config, known).nll_after for rows in sessions]

    together = np.array([found.nll_after for found in adapt_many(model, sessions, config, known)])
    alone = np.array(one_by_one())
    # Contexts that fit equally well may differ in directions that the data do not see: compare what they predict.
    difference = float(np.max(np.abs(together - alone) / np.maximum(1.0, np.abs(alone))))
    checked = {"held-out nll, relative": require_equal("held-out nll", difference, 1e-3)}
    timed = interleave(
        {"together": lambda: adapt_many(model, sessions, config, known), "loop": one_by_one},
        pace,
    )
    return [
        compared(
            ID,
            f"adapting {SESSIONS} sessions, {NAME}",
            TARGET,
            per_second("sessions", SESSIONS),
            timed["together"],
            ("one after the other", timed["loop"]),
            checked=checked,
        )
    ]
