"""A task that changes where the robot runs."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
from gymnasium.envs.mujoco import MujocoEnv


def take_over(old: gymnasium.Env[Any, Any], new: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The new environment, in the state that the old one is in, which is closed.

    Args:
        old, new: MuJoCo environments of one body.
    """
    new.reset(seed=0)
    data = cast(MujocoEnv, old.unwrapped).data
    cast(MujocoEnv, new.unwrapped).set_state(data.qpos.copy(), data.qvel.copy())
    old.close()
    return new
