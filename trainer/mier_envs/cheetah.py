"""HalfCheetah with a target speed, or with negated joints, on Gymnasium's v5 base.

Observation (17, float32): positions without absolute x, then velocities. Speed is the torso's position difference
over dt (0.05 s). The constraint solver starts cold at every control step, so that a step is a function of (positions,
velocities, action) alone: the batched physics then repeats it bit for bit.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from numpy.typing import NDArray

from mier_envs.compilation import expecting_settotalmass

HORIZON_STEPS = 200
VEL_CONTROL_COST = 0.05
NEGATED_CONTROL_COST = 0.1

Array = NDArray[np.floating[Any]]


def vel_reward(speed: Array, action: Array, target: Array) -> Array:
    """-|v - v*| - 0.05 |a|^2; speed and target [n] in m/s, action [n, 6] in [-1, 1] -> [n]."""
    reward: Array = -np.abs(speed - target) - VEL_CONTROL_COST * np.square(action).sum(-1)
    return reward


def forward_reward(speed: Array, action: Array) -> Array:
    """v - 0.1 |a|^2; speed [n] in m/s, action [n, 6] -> [n]."""
    reward: Array = speed - NEGATED_CONTROL_COST * np.square(action).sum(-1)
    return reward


class _CheetahEnv(HalfCheetahEnv):
    """The shared body: clipped actions, cold solver start, float32 observations."""

    def __init__(self, *, mask: tuple[float, ...] = (1.0,) * 6, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        if len(mask) != 6 or any(abs(m) != 1.0 for m in mask):
            raise ValueError(f"mask needs 6 entries of +1 or -1, came {mask}")
        self._mask = np.asarray(mask)
        space = self.observation_space
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, space.shape, np.float32)

    def _initialize_simulation(self) -> Any:
        with expecting_settotalmass():
            return super()._initialize_simulation()

    def _get_obs(self) -> Any:
        return super()._get_obs().astype(np.float32)  # type: ignore[no-untyped-call]

    def _reward(self, speed: float, action: Array) -> float:
        raise NotImplementedError

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        unit = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        x_before = float(self.data.qpos[0])
        self.data.qacc_warmstart[:] = 0.0
        self.do_simulation(unit * self._mask, self.frame_skip)
        speed = (float(self.data.qpos[0]) - x_before) / self.dt
        if self.render_mode == "human":
            self.render()  # type: ignore[no-untyped-call]
        return self._get_obs(), self._reward(speed, unit), False, False, {"speed": speed}


class CheetahVelEnv(_CheetahEnv):
    """Run at `target` m/s."""

    def __init__(self, target: float, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.target = float(target)

    def _reward(self, speed: float, action: Array) -> float:
        return float(vel_reward(np.asarray([speed]), action[None], np.asarray([self.target]))[0])


class CheetahNegatedEnv(_CheetahEnv):
    """Run forward although the joints marked -1 in `mask` answer the wrong way round."""

    def __init__(self, mask: tuple[float, ...], render_mode: str | None = None) -> None:
        super().__init__(mask=tuple(mask), render_mode=render_mode)

    def _reward(self, speed: float, action: Array) -> float:
        return float(forward_reward(np.asarray([speed]), action[None])[0])
