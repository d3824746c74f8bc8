"""Checkpoints of any observation size, made through the core's own API: real files, small networks, random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from mier import checkpoint, onnx_policy
from mier.agent import Agent
from mier.config import AdaptConfig, Configuration, FineTuneConfig, ModelConfig, SacConfig
from mier.relabel import RelabelBuffer
from mier.types import EnvSpec, Transitions, Varies
from mier.weights import PolicyWeights

ACTION_DIM = 6
_HORIZON_STEPS = 20
_EPISODES = 6


def write(folder: Path, name: str, observation_dim: int, finetune_updates: int = 60) -> Agent:
    """Writes folder/name/; the policy has two hidden layers of 64."""
    torch.manual_seed(0)
    spec = EnvSpec(
        id=name,
        observation_names=tuple(f"o{i}" for i in range(observation_dim)),
        action_names=tuple(f"a{i}" for i in range(ACTION_DIM)),
        action_low=(-1.0,) * ACTION_DIM,
        action_high=(1.0,) * ACTION_DIM,
        dt_s=0.05,
        horizon_steps=_HORIZON_STEPS,
        varies=Varies.REWARD,
        healthy_ranges=(),
    )
    configuration = Configuration(
        name="tiny",
        model=ModelConfig(context_dim=5, hidden=(16, 16)),
        adapt=AdaptConfig(min_transitions=20),
        sac=SacConfig(hidden=(64, 64)),
        finetune=FineTuneConfig(
            updates=finetune_updates,
            critic_only_updates=finetune_updates // 3,
            batch_size=32,
            relabel_every_updates=25,
            relabel_transitions=200,
            learning_rate=3e-4,
        ),
        gate=False,
    )
    agent = Agent.build(spec, configuration, training_tasks=3).freeze()
    agent.training_contexts = torch.randn(3, 5)
    episodes = torch.arange(_EPISODES)
    rows = rewarded(_EPISODES * _HORIZON_STEPS, observation_dim)
    buffer = RelabelBuffer(rows, episodes.repeat_interleave(_HORIZON_STEPS), episodes % 3)
    target = folder / name
    target.mkdir(parents=True)
    for file, data in checkpoint.encode(agent, buffer, name, {"seed": 0, "environment_steps": 0}).items():
        (target / file).write_bytes(data)
    return agent


def rewarded(count: int, observation_dim: int, seed: int = 0) -> Transitions:
    """Rows [count, dim] of a walk; its reward is what is seen first."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(count, observation_dim, generator=generator)
    action = 2.0 * torch.rand(count, ACTION_DIM, generator=generator) - 1.0
    following = observation + 0.05 * torch.randn(count, observation_dim, generator=generator)
    return Transitions(observation, action, following[:, 0], following, torch.zeros(count))


def graph(agent: Agent) -> bytes:
    """The policy as ONNX, as the service acts with it."""
    return onnx_policy.export(PolicyWeights.of(agent), agent)
