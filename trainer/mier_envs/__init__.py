"""Task distributions and their Gymnasium environments, registered as mier/<Name>-v0 on import."""

import gymnasium

gymnasium.register("mier/CheetahVel-v0", entry_point="mier_envs.cheetah:CheetahVelEnv", max_episode_steps=200)
gymnasium.register("mier/CheetahNegated-v0", entry_point="mier_envs.cheetah:CheetahNegatedEnv", max_episode_steps=200)

from mier_envs import cheetah_families as cheetah_families  # noqa: E402  registers the study's own
