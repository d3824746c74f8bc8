"""A tiny but real checkpoint, made through the core's own API: small networks, random weights, two families."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mier import checkpoint
from mier.agent import Agent
from mier.calibration import Calibration, GateThresholds
from mier.config import AdaptConfig, Configuration, FineTuneConfig, ModelConfig, SacConfig
from mier.ood import OodReference
from mier.relabel import RelabelBuffer
from mier.types import EnvSpec, HealthyRange, Transitions, Varies

OBSERVATION_DIM, ACTION_DIM, CONTEXT_DIM = 4, 2, 3
HORIZON_STEPS = 20


def spec(name: str, varies: Varies) -> EnvSpec:
    healthy = (HealthyRange(0, -1e3, 1e3),) if varies is Varies.DYNAMICS else ()
    return EnvSpec(
        id=name,
        observation_names=("x", "y", "dx", "dy"),
        action_names=("push_x", "push_y"),
        action_low=(-1.0, -2.0),
        action_high=(1.0, 2.0),
        dt_s=0.05,
        horizon_steps=HORIZON_STEPS,
        varies=varies,
        healthy_ranges=healthy,
    )


def transitions(count: int, seed: int) -> Transitions:
    """Rows [count, dim] of a point that is pushed about; the reward is its speed along x."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(count, OBSERVATION_DIM, generator=generator)
    action = torch.rand(count, ACTION_DIM, generator=generator) * 2.0 - 1.0
    following = observation + 0.05 * torch.cat([observation[:, 2:], action], 1)
    return Transitions(observation, action, following[:, 2], following, torch.zeros(count))


def write(
    folder: Path,
    name: str,
    varies: Varies,
    seed: int = 0,
    environment: str | None = None,
    context_dim: int = CONTEXT_DIM,
    observation_std: float = 1.0,
    gate: GateThresholds | None = None,
    gate_sign: float = 1.0,
    learning_rate: float = 3e-4,
    bound: float = 1.0,
    ood: OodReference | None = None,
    model: ModelConfig | None = None,
    adapt: AdaptConfig | None = None,
    head_scale: float = 1.0,
) -> None:
    """Writes checkpoints/<name>/ under `folder`; its environment bears the same name unless another is given.
    `observation_std` is that of the policy's normaliser: trained ones go down to 0.01. With a gate it has the gate's
    networks, of random weights as all are; with a `gate_sign` of -1 it likes what it disliked. `learning_rate` is of
    fine-tuning. `bound` scales the bounds of actions, which leaves the weights as they are."""
    torch.manual_seed(seed)
    configuration = Configuration(
        name="tiny",
        model=model or ModelConfig(context_dim=context_dim, hidden=(16, 16)),
        adapt=adapt or AdaptConfig(min_transitions=20),
        sac=SacConfig(hidden=(16, 16)),
        finetune=FineTuneConfig(
            updates=60,
            critic_only_updates=20,
            batch_size=32,
            relabel_every_updates=25,
            relabel_transitions=200,
            learning_rate=learning_rate,
        ),
        gate=gate is not None,
    )
    environment_spec = spec(environment or name, varies)
    environment_spec = replace(
        environment_spec,
        action_low=tuple(bound * low for low in environment_spec.action_low),
        action_high=tuple(bound * high for high in environment_spec.action_high),
    )
    agent = Agent.build(environment_spec, configuration, training_tasks=3)
    agent.training_contexts = torch.randn(3, context_dim)
    agent.policy.observation_norm.std.fill_(observation_std)
    with torch.no_grad():
        agent.model.head.weight.mul_(head_scale)
    if agent.gate_model is not None:
        with torch.no_grad():
            agent.gate_model.head.weight[0].mul_(gate_sign)
            agent.gate_model.head.bias[0].mul_(gate_sign)
    episodes = 6
    buffer = RelabelBuffer(
        transitions(episodes * HORIZON_STEPS, seed),
        torch.arange(episodes).repeat_interleave(HORIZON_STEPS),
        torch.arange(episodes) % 3,
    )
    facts: dict[str, Any] = {"seed": seed, "environment_steps": 0}
    if gate or ood:
        facts["calibration"] = Calibration(gate, ood).to_json()
    files = checkpoint.encode(agent.freeze(), buffer, name, facts)
    target = folder / name
    target.mkdir(parents=True)
    for file, data in files.items():
        (target / file).write_bytes(data)


def read(folder: Path, name: str) -> checkpoint.Checkpoint:
    return checkpoint.decode({file: (folder / name / file).read_bytes() for file in checkpoint.CHECKPOINT_FILES})


def arrays(count: int, seed: int) -> dict[str, np.ndarray]:
    """The same rows as NumPy, for a client."""
    rows = transitions(count, seed)
    return {
        "observation": rows.observation.numpy(),
        "action": rows.action.numpy(),
        "reward": rows.reward.numpy(),
        "next_observation": rows.next_observation.numpy(),
    }
