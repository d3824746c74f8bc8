"""Many cheetahs in one call: the environments' step, batched through `mujoco.rollout`.

Rows are independent; row i equals the Gymnasium environment of task i step for step (tested).
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import NDArray

from mier_envs.cheetah import forward_reward, vel_reward
from mier_envs.compilation import expecting_settotalmass

FRAME_SKIP = 5
RESET_NOISE = 0.1

Floats = NDArray[np.float64]


class BatchedCheetah:
    """n cheetahs, each with its own task: [n] target speeds (or None for plain forward reward), [n, 6] sign masks."""

    def __init__(self, masks: Floats, targets: Floats | None) -> None:
        self.model: Any = _half_cheetah_model()
        self.masks = np.asarray(masks, np.float64)
        self.targets = targets
        self._data = mujoco.MjData(self.model)
        self._rollout = mujoco.rollout.Rollout(nthread=0)
        self._dt_s = self.model.opt.timestep * FRAME_SKIP
        # FULLPHYSICS state: time, qpos (9), qvel (9).
        self._state = np.zeros((self.rows, 1 + self.model.nq + self.model.nv))
        self._warmstart = np.zeros((self.rows, self.model.nv))

    @property
    def rows(self) -> int:
        return len(self.masks)

    def reset(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """New episodes in all rows; [n, 17]."""
        nq, nv = self.model.nq, self.model.nv
        self._state[:, 0] = 0.0
        self._state[:, 1 : 1 + nq] = self.model.qpos0 + rng.uniform(-RESET_NOISE, RESET_NOISE, (self.rows, nq))
        self._state[:, 1 + nq :] = RESET_NOISE * rng.standard_normal((self.rows, nv))
        return self._observation()

    def set_state(self, qpos: Floats, qvel: Floats) -> NDArray[np.float32]:
        """Put all rows into given positions [n, 9] and velocities [n, 9]."""
        self._state = np.concatenate([np.zeros((self.rows, 1)), qpos, qvel], -1)
        return self._observation()

    def step(
        self, action: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Actions [n, 6] -> next observations [n, 17], rewards [n], falls [n] (a cheetah never does)."""
        unit = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        x_before = self._state[:, 1].copy()
        control = np.repeat((unit * self.masks)[:, None], FRAME_SKIP, axis=1)
        states, _ = self._rollout.rollout(
            self.model, self._data, self._state, control, initial_warmstart=self._warmstart
        )
        self._state = np.ascontiguousarray(states[:, -1])
        speed = (self._state[:, 1] - x_before) / self._dt_s
        reward = forward_reward(speed, unit) if self.targets is None else vel_reward(speed, unit, self.targets)
        return self._observation(), reward.astype(np.float32), np.zeros(self.rows, np.float32)

    def _observation(self) -> NDArray[np.float32]:
        return self._state[:, 2:].astype(np.float32)


def _half_cheetah_model() -> Any:
    path = files("gymnasium.envs.mujoco").joinpath("assets/half_cheetah.xml")
    with expecting_settotalmass():
        return mujoco.MjModel.from_xml_path(str(path))
