"""Shared fixtures: tiny systems, and real checkpoints of them with small random networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from mier import checkpoint
from mier.agent import Agent
from mier.config import (
    AdaptConfig,
    AdaptMethod,
    Conditioning,
    Configuration,
    FineTuneConfig,
    ModelConfig,
    SacConfig,
)
from mier.relabel import RelabelBuffer
from mier.types import EnvSpec, HealthyRange, Transitions, Varies

HORIZON_STEPS = 20


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Networks are initialised from torch's global state: the same in every test, left as it was found."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def reward_spec() -> EnvSpec:
    """Three observations, two actions with bounds that are neither symmetric nor equal."""
    return EnvSpec(
        id="tiny/Reward-v0",
        observation_names=("height", "angle", "speed"),
        action_names=("left", "right"),
        action_low=(-1.0, -0.5),
        action_high=(1.0, 2.0),
        dt_s=0.05,
        horizon_steps=HORIZON_STEPS,
        varies=Varies.REWARD,
    )


@pytest.fixture
def dynamics_spec(reward_spec: EnvSpec) -> EnvSpec:
    """The same system with a termination rule: a height outside [-1.5, 1.5] is a fall."""
    return replace(
        reward_spec,
        id="tiny/Dynamics-v0",
        varies=Varies.DYNAMICS,
        healthy_ranges=(HealthyRange(0, -1.5, 1.5),),
    )


@pytest.fixture
def transitions() -> Callable[..., Transitions]:
    """transitions(spec, n, seed): rows [n, dim] of a damped body that the actions push; some end in a fall."""
    return _transitions


def _transitions(spec: EnvSpec, n: int, seed: int = 0) -> Transitions:
    draw = torch.Generator().manual_seed(seed)
    observation = torch.randn(n, spec.observation_dim, generator=draw)
    unit = 2.0 * torch.rand(n, spec.action_dim, generator=draw) - 1.0
    push = unit.sum(-1, keepdim=True) * torch.linspace(0.5, 1.5, spec.observation_dim)
    following = 0.9 * observation + 0.1 * push
    reward = following[:, -1] - 0.1 * unit.square().sum(-1)
    return Transitions(observation, spec.from_unit_action(unit), reward, following, spec.terminated(following))


@pytest.fixture
def relabel_buffer() -> Callable[[EnvSpec], RelabelBuffer]:
    """Whole episodes of three tasks, of different lengths; states exact in float16."""
    return _relabel_buffer


def _relabel_buffer(spec: EnvSpec) -> RelabelBuffer:
    lengths = torch.tensor([20, 7, 20, 20, 13, 20])
    rows = _transitions(spec, int(lengths.sum()), 5)
    rows = Transitions(*(field.half().float() for field in rows))
    episode = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    last = torch.cat([episode[1:] != episode[:-1], torch.tensor([True])])
    following = torch.where(last[:, None], rows.next_observation, rows.observation.roll(-1, 0))
    rows = rows._replace(next_observation=following, terminated=torch.where(last, spec.terminated(following), 0.0))
    return RelabelBuffer(rows, episode, torch.tensor([0, 1, 2, 0, 1, 2]))


TINY_FINE_TUNE = FineTuneConfig(
    updates=12,
    critic_only_updates=3,
    batch_size=16,
    real_fraction=0.25,
    relabel_every_updates=5,
    relabel_transitions=40,
    relabel_capacity=70,
    rollout_steps=2,
    own_starts=0.3,
    model_steps=3,
)


@pytest.fixture
def tiny_fine_tune() -> FineTuneConfig:
    """12 updates: 4 of the critic alone, dynamics relabelled at 0, 5 and 10."""
    return TINY_FINE_TUNE


@pytest.fixture
def tiny_configuration() -> Callable[[Varies], Configuration]:
    """What the bundled checkpoints use, on small networks."""
    return _configuration


def _configuration(varies: Varies) -> Configuration:
    dynamics = varies is Varies.DYNAMICS
    return Configuration(
        name="tiny",
        model=ModelConfig(
            context_dim=4,
            hidden=(16, 16),
            conditioning=Conditioning.FILM if dynamics else Conditioning.LINEAR_HEAD,
            action_gate=dynamics,
            next_observation_input=not dynamics,
        ),
        adapt=AdaptConfig(
            method=AdaptMethod.GAUSS_NEWTON if dynamics else AdaptMethod.CLOSED_FORM,
            learned_rate=dynamics,
            gauss_newton_steps=8,
            min_transitions=20,
        ),
        sac=SacConfig(hidden=(16, 16)),
        finetune=TINY_FINE_TUNE,
        dynamics=None if dynamics else ModelConfig(context_dim=0, hidden=(16, 16), trained_prior=False),
    )


@pytest.fixture
def checkpoint_files() -> Callable[[EnvSpec], dict[str, bytes]]:
    """The files of a real checkpoint of a spec: untrained networks, distinct training contexts."""
    return _checkpoint_files


def _checkpoint_files(spec: EnvSpec) -> dict[str, bytes]:
    torch.manual_seed(7)
    agent = Agent.build(spec, _configuration(spec.varies), training_tasks=3)
    agent.training_contexts = torch.randn(3, 4)
    agent.log_alpha = -1.25
    with torch.no_grad():
        for module in agent.modules().values():
            for name, buffer in module.named_buffers():
                if name.endswith("std"):
                    buffer.uniform_(0.5, 2.0)
                elif name.endswith("mean"):
                    buffer.normal_()
    return checkpoint.encode(agent, _relabel_buffer(spec), f"tiny-{spec.varies}", {"seed": 7, "command": "a test"})


@pytest.fixture
def reward_checkpoint(reward_spec: EnvSpec) -> checkpoint.Checkpoint:
    return checkpoint.decode(_checkpoint_files(reward_spec))


@pytest.fixture
def dynamics_checkpoint(dynamics_spec: EnvSpec) -> checkpoint.Checkpoint:
    return checkpoint.decode(_checkpoint_files(dynamics_spec))


@pytest.fixture(params=list(Varies))
def ready(
    request: pytest.FixtureRequest,
    reward_checkpoint: checkpoint.Checkpoint,
    dynamics_checkpoint: checkpoint.Checkpoint,
    transitions: Callable[..., Transitions],
) -> tuple[checkpoint.Checkpoint, Transitions]:
    """A checkpoint of either family, with real transitions of a new task."""
    chosen = reward_checkpoint if request.param is Varies.REWARD else dynamics_checkpoint
    return chosen, transitions(chosen.spec, 40, 3)
