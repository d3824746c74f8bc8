"""Soft actor-critic, conditioned on a context: losses as functions, one update of a state.

Twin Q and no V; the temperature is tuned to a target entropy; bootstrapping stops at terminations only
(running out of time is a truncation). Haarnoja et al. 2018, "SAC algorithms and applications".
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mier.config import SacConfig
from mier.networks import Policy, TwinCritic
from mier.types import EnvSpec, Transitions


class SacNoise(NamedTuple):
    """Standard normal draws of one update, [batch, action_dim] each: randomness is a parameter."""

    next_action: Tensor
    action: Tensor

    @staticmethod
    def draw(rows: int, action_dim: int, generator: torch.Generator) -> SacNoise:
        noise = torch.randn(2, rows, action_dim, generator=generator, device=generator.device)
        return SacNoise(noise[0], noise[1])


def td_target(
    reward: Tensor, terminated: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha: Tensor, discount: float
) -> Tensor:
    """Soft Bellman target [batch]; next_q is [2, batch] of the target critics (eq. 3 with clipped double Q)."""
    soft_value = next_q.min(0).values - alpha * next_log_prob
    return reward + discount * (1.0 - terminated) * soft_value


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Sum over both critics of half the mean squared Bellman error (eq. 5); q [2, batch], target [batch]."""
    return 0.5 * F.mse_loss(q, target.expand_as(q), reduction="none").mean(-1).sum()


def actor_loss(q: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """alpha log pi - min Q, averaged (eq. 9); q [2, batch], log_prob [batch]."""
    return (alpha * log_prob - q.min(0).values).mean()


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """-log_alpha (log pi + target entropy), averaged (eq. 18 in the log parametrisation)."""
    return -(log_alpha * (log_prob + target_entropy)).mean()


@dataclass
class SacState:
    """Everything that one update reads and moves; `state_dict` and `load_state_dict` carry it whole."""

    spec: EnvSpec
    config: SacConfig
    policy: Policy
    critic: TwinCritic
    target_critic: TwinCritic
    log_alpha: nn.Parameter
    actor_optimizer: torch.optim.Adam
    critic_optimizer: torch.optim.Adam
    alpha_optimizer: torch.optim.Adam

    @staticmethod
    def start(
        spec: EnvSpec,
        policy: Policy,
        critic: TwinCritic,
        config: SacConfig,
        *,
        log_alpha: float = 0.0,
        rate: float = 0.0,
    ) -> SacState:
        """Fresh optimisers, targets equal to the given critics; `rate` overrides the configured learning rate."""
        device = next(policy.parameters()).device
        alpha = nn.Parameter(torch.tensor(log_alpha, device=device))
        lr = rate or config.learning_rate

        def adam(parameters: object) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr=lr, fused=True)  # type: ignore[arg-type]

        target = copy.deepcopy(critic).requires_grad_(False)
        return SacState(
            spec,
            config,
            policy,
            critic,
            target,
            alpha,
            adam(policy.parameters()),
            adam(critic.parameters()),
            adam([alpha]),
        )

    def set_learning_rate(self, rate: float) -> None:
        for optimizer in (self.actor_optimizer, self.critic_optimizer, self.alpha_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def state_dict(self) -> dict[str, object]:
        return {name: getattr(self, name).state_dict() for name in _STATEFUL} | {
            "log_alpha": self.log_alpha.detach().clone()
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])  # type: ignore[arg-type]


_STATEFUL = ("policy", "critic", "target_critic", "actor_optimizer", "critic_optimizer", "alpha_optimizer")


class SacMetrics(NamedTuple):
    critic_loss: Tensor
    actor_loss: Tensor
    alpha: Tensor
    entropy: Tensor
    q_mean: Tensor


def update_critic(
    state: SacState, batch: Transitions, context: Tensor, noise: Tensor, target_rate: float
) -> tuple[Tensor, Tensor]:
    """One critic step and one target step; batch rows [n, dim], context [n, context_dim]. Returns (loss, mean Q)."""
    with torch.no_grad():
        alpha = state.log_alpha.exp()
        next_action, next_log_prob = state.policy.sample(batch.next_observation, context, noise)
        next_q = state.target_critic(batch.next_observation, next_action, context)
        reward = batch.reward * state.config.reward_scale
        target = td_target(reward, batch.terminated, next_q, next_log_prob, alpha, state.config.discount)
    q = state.critic(batch.observation, state.spec.to_unit_action(batch.action), context)
    loss = critic_loss(q, target)
    state.critic_optimizer.zero_grad()
    loss.backward()
    state.critic_optimizer.step()
    with torch.no_grad():
        torch._foreach_lerp_(list(state.target_critic.parameters()), list(state.critic.parameters()), target_rate)
    return loss.detach(), q.detach().mean()


def update_actor(state: SacState, batch: Transitions, context: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """One policy step and one temperature step. Returns (loss, entropy)."""
    action, log_prob = state.policy.sample(batch.observation, context, noise)
    state.critic.requires_grad_(False)
    loss = actor_loss(state.critic(batch.observation, action, context), log_prob, state.log_alpha.detach().exp())
    state.actor_optimizer.zero_grad()
    loss.backward()
    state.actor_optimizer.step()
    state.critic.requires_grad_(True)
    alpha_loss = temperature_loss(state.log_alpha, log_prob.detach(), state.config.target_entropy)
    state.alpha_optimizer.zero_grad()
    alpha_loss.backward()
    state.alpha_optimizer.step()
    return loss.detach(), -log_prob.detach().mean()


def update(state: SacState, batch: Transitions, context: Tensor, noise: SacNoise) -> SacMetrics:
    """One full SAC update on rows [n, dim] with a context per row [n, context_dim] (detached)."""
    c_loss, q_mean = update_critic(state, batch, context, noise.next_action, state.config.target_rate)
    a_loss, entropy = update_actor(state, batch, context, noise.action)
    return SacMetrics(c_loss, a_loss, state.log_alpha.detach().exp(), entropy, q_mean)
