"""The oracle: SAC from scratch on one task, the reference that normalises every gain.

250k environment steps, one update per two steps (ALGORITHM section 6). As in meta-training, an epoch is a function of
(state, seed, epoch number), so a resumed run ends the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mier import sac
from mier.config import SacConfig
from mier.networks import Policy, TwinCritic
from mier.replay_buffer import ReplayBuffer
from mier.types import EnvSpec
from mier_envs.cheetah_families import mask_of
from mier_envs.families import Family, Task
from mier_trainer.epoch_random import EpochRandom
from mier_trainer.rollout import collect, flatten_episodes

ENVIRONMENT_STEPS = 250_000
_EPISODES_PER_EPOCH = 10
_STEPS_PER_UPDATE = 2
_BATCH = 256
_NORMALIZER_EPOCHS = 20


@dataclass
class OracleTrainer:
    """SAC on one task, without a context."""

    family: Family
    task: Task
    seed: int
    state: sac.SacState
    replay: ReplayBuffer
    epochs_done: int = 0

    @staticmethod
    def start(family: Family, task: Task, seed: int) -> OracleTrainer:
        spec = EnvSpec.from_json(family.spec_json())
        torch.manual_seed(seed)
        config = SacConfig()
        policy, critic = Policy(spec, 0, config), TwinCritic(spec, 0, config)
        state = sac.SacState.start(spec, policy, critic, config)
        return OracleTrainer(family, task, seed, state, ReplayBuffer(spec, 1, ENVIRONMENT_STEPS))

    @property
    def environment_steps(self) -> int:
        return self.epochs_done * self._steps_per_epoch

    @property
    def _steps_per_epoch(self) -> int:
        return _EPISODES_PER_EPOCH * self.state.spec.horizon_steps

    @property
    def done(self) -> bool:
        return self.environment_steps >= ENVIRONMENT_STEPS

    @property
    def updates_per_epoch(self) -> int:
        return self._steps_per_epoch // _STEPS_PER_UPDATE

    def epoch(self, on_step: Callable[[int], None]) -> dict[str, float]:
        """One episode, then its share of updates, ten times over; returns mean metrics."""
        draw = EpochRandom.of(self.seed, self.epochs_done)
        returns = []
        for _ in range(_EPISODES_PER_EPOCH):
            gathered = collect(
                self.family, [self.task], self.state.policy, torch.zeros(1, 0), rng=draw.numpy, generator=draw.torch
            )
            returns.append(gathered.returns().item())
            self.replay.add(0, gathered.flat())
            self._fit_normalizers()
            for step in range(self.updates_per_epoch // _EPISODES_PER_EPOCH):
                batch = flatten_episodes(self.replay.sample(torch.zeros(1, dtype=torch.int64), _BATCH, draw.torch))
                noise = sac.SacNoise.draw(_BATCH, self.state.spec.action_dim, draw.torch)
                metrics = sac.update(self.state, batch, torch.zeros(_BATCH, 0), noise)
                on_step(step)
        self.epochs_done += 1
        return {"return_exploring": float(np.mean(returns)), **{k: v.item() for k, v in metrics._asdict().items()}}

    def _fit_normalizers(self) -> None:
        if self.epochs_done < _NORMALIZER_EPOCHS:
            rows = self.replay.contents(0).observation
            for module in (self.state.policy, self.state.critic, self.state.target_critic):
                module.observation_norm.fit(rows)

    def state_dict(self) -> dict[str, Any]:
        return {
            "sac": self.state.state_dict(),
            "replay": self.replay.state_dict(),
            "epochs_done": self.epochs_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state.load_state_dict(state["sac"])
        self.replay.load_state_dict(state["replay"])
        self.epochs_done = state["epochs_done"]


def oracle_returns(trainer: OracleTrainer, task: Task, *, episodes: int, seed: int) -> list[float]:
    """Deterministic episode returns of the oracle's policy on `task`.

    Where tasks differ by actuator signs only, the oracle of one is the oracle of all: with signs m' instead of m, the
    action m' * m * a does exactly what a did. So the policy is carried over by that symmetry, and really run there.
    """
    policy = trainer.state.policy
    carried = _Signed(policy, torch.tensor(mask_of(trainer.task)) * torch.tensor(mask_of(task)))
    played = collect(
        trainer.family,
        [task] * episodes,
        carried,
        torch.zeros(episodes, 0),
        rng=np.random.default_rng(seed),
        generator=None,
    )
    returns: list[float] = played.returns().tolist()
    return returns


class _Signed(Policy):
    """A policy whose actions are multiplied by fixed signs."""

    def __init__(self, policy: Policy, signs: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self._policy, self._signs = policy, signs
        self.head = policy.head

    def forward(self, observation: torch.Tensor, context: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        action: torch.Tensor = self._policy(observation, context, noise) * self._signs
        return action
