"""Stable-Baselines3's SAC beside ours: the same weights, the same replay, the same draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer as TheirReplay
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from mier import sac
from mier.config import SacConfig
from mier.networks import Policy, TwinCritic
from mier.replay_buffer import ReplayBuffer
from mier.types import EnvSpec, Transitions

BATCH = 256


class _Spaces(gymnasium.Env[Any, Any]):
    """What SB3 builds its networks for; it is never stepped."""

    def __init__(self, spec: EnvSpec) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (spec.observation_dim,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)


@dataclass
class Pair:
    """Both learners on one task's transitions, actions in [-1, 1]."""

    state: sac.SacState
    replay: ReplayBuffer
    theirs: SAC


def start(spec: EnvSpec, transitions: Transitions) -> Pair:
    """Ours with fresh networks, SB3's with a copy of them, both with the transitions [n, dim] in their replay."""
    config = SacConfig(target_entropy=-float(spec.action_dim))
    state = sac.SacState.start(spec, Policy(spec, 0, config), TwinCritic(spec, 0, config), config)
    replay = ReplayBuffer(spec, 1, transitions.size)
    replay.add(0, transitions)
    theirs = SAC(
        "MlpPolicy",
        _Spaces(spec),
        learning_rate=config.learning_rate,
        buffer_size=transitions.size,
        batch_size=BATCH,
        tau=config.target_rate,
        gamma=config.discount,
        ent_coef="auto_1.0",
        target_entropy=config.target_entropy,
        policy_kwargs={"net_arch": list(config.hidden)},
        device="cpu",
    )
    theirs.set_logger(Logger(None, []))
    _fill(cast(TheirReplay, theirs.replay_buffer), transitions)
    _copy_policy(state.policy, theirs.actor)
    for critic in (theirs.critic, theirs.critic_target):
        for i, network in enumerate(critic.q_networks):
            _copy_critic(state.critic, i, network)
    return Pair(state, replay, theirs)


def step_ours(pair: Pair, generator: torch.Generator, bf16: bool) -> sac.SacMetrics:
    """One update as the oracle's trainer makes it: sample, draw, update."""
    rows = pair.replay.sample(torch.zeros(1, dtype=torch.int64), BATCH, generator)
    batch = Transitions(*(field[0] for field in rows))
    noise = sac.SacNoise.draw(BATCH, pair.state.spec.action_dim, generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
        return sac.update(pair.state, batch, torch.zeros(BATCH, 0), noise)


def _fill(replay: TheirReplay, t: Transitions) -> None:
    replay.observations[:, 0] = t.observation.numpy()
    replay.next_observations[:, 0] = t.next_observation.numpy()
    replay.actions[:, 0] = t.action.numpy()
    replay.rewards[:, 0] = t.reward.numpy()
    replay.dones[:, 0] = t.terminated.numpy()
    replay.pos, replay.full = 0, True


@torch.no_grad()
def _copy_policy(policy: Policy, actor: nn.Module) -> None:
    for ours, theirs in zip(policy.layers, _linears(cast(nn.Module, actor.latent_pi)), strict=True):
        theirs.load_state_dict(ours.state_dict())
    half = policy.head.out_features // 2
    for head, rows in ((actor.mu, slice(half)), (actor.log_std, slice(half, None))):
        layer = cast(nn.Linear, head)
        layer.weight.copy_(policy.head.weight[rows])
        layer.bias.copy_(policy.head.bias[rows])


@torch.no_grad()
def _copy_critic(critic: TwinCritic, i: int, network: nn.Module) -> None:
    for weight, bias, theirs in zip(critic.weights, critic.biases, _linears(network), strict=True):
        theirs.weight.copy_(weight[i].T)
        theirs.bias.copy_(bias[i, 0])


def _linears(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def difference_after_one_update(pair: Pair, seed: int) -> dict[str, float]:
    """Update both once, the first time, on the same batch with the same draws, in fp32: differences, relative, of the
    losses and of all gradients."""
    spec = pair.state.spec
    index = np.random.default_rng(seed).integers(pair.replay.capacity, size=BATCH)
    # SB3 draws for the current observations first, then for the next ones, from torch's global state.
    torch.manual_seed(seed)
    action, next_action = (torch.normal(torch.zeros(BATCH, spec.action_dim), 1.0) for _ in range(2))
    replay = cast(TheirReplay, pair.theirs.replay_buffer)
    batch = Transitions(*(ring[0, torch.from_numpy(index)] for ring in pair.replay.rows))
    metrics = sac.update(pair.state, batch, torch.zeros(BATCH, 0), sac.SacNoise(next_action, action))
    given, sample = replay._get_samples(index), replay.sample
    replay.sample = lambda *_, **__: given  # type: ignore[method-assign]
    torch.manual_seed(seed)
    pair.theirs.train(1, BATCH)
    replay.sample = sample  # type: ignore[method-assign]
    logged = pair.theirs.logger.name_to_value
    losses = {
        "critic loss": (metrics.critic_loss.item(), logged["train/critic_loss"]),
        "actor loss": (metrics.actor_loss.item(), logged["train/actor_loss"]),
    }
    pair.theirs.logger.dump()
    found = {f"{name}, relative": abs(a - b) / max(abs(b), 1e-6) for name, (a, b) in losses.items()}
    return found | {"gradients, relative": _gradient_difference(pair)}


def _gradient_difference(pair: Pair) -> float:
    """Of what Adam keeps of the gradients: the weights themselves move by the sign of any gradient, however small."""
    pairs: list[tuple[Tensor, Tensor]] = []
    ours, theirs = pair.state.actor_optimizer.state, pair.theirs.actor.optimizer.state
    policy, actor = pair.state.policy, pair.theirs.actor
    for layer, same in zip(policy.layers, _linears(actor.latent_pi), strict=True):
        pairs.append((ours[layer.weight]["exp_avg"], theirs[same.weight]["exp_avg"]))  # type: ignore[index]
    heads = [theirs[head.weight]["exp_avg"] for head in (actor.mu, actor.log_std)]  # type: ignore[union-attr, index]
    pairs.append((ours[policy.head.weight]["exp_avg"], torch.cat(heads)))
    ours, theirs = pair.state.critic_optimizer.state, pair.theirs.critic.optimizer.state
    for i, network in enumerate(pair.theirs.critic.q_networks):
        for weight, same in zip(pair.state.critic.weights, _linears(network), strict=True):
            pairs.append((ours[weight]["exp_avg"][i].T, theirs[same.weight]["exp_avg"]))
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
