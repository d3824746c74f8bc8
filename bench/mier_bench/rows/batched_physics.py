"""Row 11: physics in one call, against a loop over single environments, and against bare `mujoco.rollout`."""

from __future__ import annotations

from typing import Any

import mujoco
import mujoco.rollout
import numpy as np

from mier_bench import bundled
from mier_bench.interleaving import Pace, interleave
from mier_bench.row import Row, Target, Wanted, compared, per_second, require_equal
from mier_envs.batched import FRAME_SKIP, BatchedCheetah
from mier_envs.families import FAMILIES

ID = 11
ROWS = 64
FAMILY = "cheetah-vel-ood"


def rows(pace: Pace) -> list[Row]:
    family, tasks = FAMILIES[FAMILY], bundled.tasks_of(FAMILY, ROWS)
    batch = family.batch(tasks)
    assert isinstance(batch, BatchedCheetah)
    single: list[Any] = [family.make(task).unwrapped for task in tasks]
    draw = np.random.default_rng(0)
    batch.reset(draw)
    for row, env in enumerate(single):
        env.reset(seed=0)
        env.set_state(batch._state[row, 1:10], batch._state[row, 10:19])
    actions = draw.uniform(-1.0, 1.0, (20, ROWS, 6)).astype(np.float32)
    difference = 0.0
    for action in actions:
        seen, reward, _ = batch.step(action)
        each = [env.step(a) for env, a in zip(single, action, strict=True)]
        difference = max(difference, float(np.abs(seen - np.stack([e[0] for e in each])).max()))
        difference = max(difference, float(np.abs(reward - np.asarray([e[1] for e in each])).max()))
    checked = {"observations and rewards": require_equal("observations and rewards", difference, 1e-6)}
    model, data = batch.model, mujoco.MjData(batch.model)
    bare = mujoco.rollout.Rollout(nthread=0)
    control = np.repeat(actions[0].astype(np.float64)[:, None], FRAME_SKIP, axis=1)
    state, warm = batch._state.copy(), np.zeros((ROWS, model.nv))

    def bare_rollout() -> None:
        # It goes on from where it ended, as the batch does: resting cheetahs cost less than running ones.
        nonlocal state
        states, _ = bare.rollout(model, data, state, control, initial_warmstart=warm)
        state = np.ascontiguousarray(states[:, -1])

    def loop() -> None:
        for env, action in zip(single, actions[0], strict=True):
            env.step(action)

    timed = interleave({"batch": lambda: batch.step(actions[0]), "loop": loop, "bare": bare_rollout}, pace)
    unit = per_second("steps", ROWS)
    return [
        compared(
            ID,
            f"physics, {ROWS} cheetahs a call, one core",
            target,
            unit,
            timed["batch"],
            (peer, timed[name]),
            ("bare mujoco.rollout", timed["bare"]),
            checked=checked,
        )
        for name, peer, target in (
            ("loop", "a loop over single environments", Target(Wanted.AT_LEAST, 1.4)),
            ("bare", "bare mujoco.rollout", Target(Wanted.AT_MOST, 1.1)),
        )
    ]
