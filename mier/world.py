"""What is known of a task's world: where an action leads and what it is worth; and episodes imagined in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mier.config import AdaptConfig, ModelConfig
from mier.networks import DynamicsModel
from mier.types import EnvSpec, Transitions, Varies

Act = Callable[[Tensor], Tensor]
"""States [n, observation_dim] -> actions [n, action_dim] in environment units."""


def shared_dynamics(spec: EnvSpec, config: ModelConfig) -> DynamicsModel:
    """A network of where actions lead, for families of which only the reward varies: it needs no context.

    Raises:
        ValueError: the family's model predicts that already.
    """
    if spec.varies is Varies.DYNAMICS:
        raise ValueError("dynamics are shared where only the reward varies; elsewhere the task's model predicts them")
    return DynamicsModel(replace(spec, varies=Varies.DYNAMICS), config, AdaptConfig())


@dataclass(frozen=True)
class World:
    """One task, as its adapted model has it."""

    spec: EnvSpec
    model: DynamicsModel
    context: Tensor
    """[context_dim]"""
    dynamics: DynamicsModel | None = None
    """`shared_dynamics`, where only the reward varies."""

    def __post_init__(self) -> None:
        if self.spec.varies is Varies.REWARD and self.dynamics is None:
            raise ValueError("where only the reward varies, a world needs the checkpoint's shared dynamics")

    def step(self, states: Tensor, actions: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """States [n, observation_dim] and actions in environment units -> reward [n], next states.

        Drawn from the network's Gaussian with a generator, expected without. The reward of a task of which only that
        varies is always the expected one.
        """
        zero = torch.zeros(len(states))
        asked = Transitions(states, actions, zero, states, zero)
        if self.dynamics is None:
            target = _target(self.model, asked, self.context, generator)
            return target[..., 0], states + target[..., 1:]
        following = states + _target(self.dynamics, asked, self.dynamics.prior_context, generator)[..., 1:]
        rewarded = _target(self.model, asked._replace(next_observation=following), self.context, None)
        return rewarded[..., 0], following


def _target(model: DynamicsModel, asked: Transitions, context: Tensor, generator: torch.Generator | None) -> Tensor:
    prediction = model(asked, context)
    said = prediction.mean
    if generator is not None:
        said = said + torch.exp(0.5 * prediction.log_var) * torch.randn(said.shape, generator=generator)
    target: Tensor = model.target_norm.inverse(said)
    return target


@torch.no_grad()
def imagined_returns(world: World, act: Act, states: Tensor, steps: int) -> Tensor:
    """Return [n] of `steps` model steps from states [n, observation_dim]; a fall ends an episode.

    A model that blew up says nothing good of the policy that led it there: such a return is -inf, never NaN.
    """
    alive, total = torch.ones(len(states)), torch.zeros(len(states))
    for _ in range(steps):
        reward, states = world.step(states, act(states))
        # Not `alive * reward`: after a fall the model may go anywhere, and 0 * inf is NaN.
        total += torch.where(alive > 0.0, reward, 0.0)
        alive = alive * (1.0 - world.spec.terminated(states))
    return torch.where(total.isfinite(), total, -torch.inf)


def episode_starts(rows: Transitions) -> Tensor:
    """Indices of the first row of each episode in rows [n, dim]: within one, each state is the one before's next."""
    joined = (rows.next_observation[:-1] == rows.observation[1:]).all(-1)
    return torch.cat([torch.zeros(1, dtype=torch.long), (~joined).nonzero().flatten() + 1])
