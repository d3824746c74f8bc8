"""The context-conditioned model p(s', r | s, a; theta, phi): one network, the context appended to its input."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mier.config import Conditioning
from mier.networks import DynamicsModel
from mier.types import Transitions, Varies


class Batch(NamedTuple):
    """Rows of one task: inputs [n, input_dim] without the context, normalised targets [n, target_dim]."""

    state: Tensor
    action: Tensor
    target: Tensor


class Model(nn.Module):
    """Four hidden layers of leaky ReLUs; mean and log variance of (reward, state difference)."""

    def __init__(
        self, state_dim: int, action_dim: int, context_dim: int, hidden: tuple[int, ...], target_dim: int, gated: bool
    ) -> None:
        super().__init__()
        self.gated_dim = action_dim if gated else 0
        sizes = [state_dim + action_dim + context_dim - self.gated_dim, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.mean = nn.Linear(sizes[-1], target_dim)
        self.log_var = nn.Linear(sizes[-1], target_dim)
        self.context = nn.Parameter(torch.zeros(context_dim))
        self.log_var_range = (-10.0, 0.5)

    def forward(self, state: Tensor, action: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """States [n, state_dim], actions [n, action_dim] in [-1, 1], one context [context_dim] for all rows."""
        if self.gated_dim:
            action = action * (1.0 + context[: self.gated_dim])
        appended = context[self.gated_dim :].expand(len(state), -1)
        h = torch.cat([state, action, appended], dim=1)
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
        low, high = self.log_var_range
        return self.mean(h), low + (high - low) * torch.sigmoid(self.log_var(h))

    def loss(self, batch: Batch, context: Tensor) -> Tensor:
        """Negative log likelihood: the reward's, plus the mean over state dims of the state's; mean over rows."""
        mean, log_var = self(batch.state, batch.action, context)
        error = (batch.target - mean) ** 2
        nll = 0.5 * (log_var + error / torch.exp(log_var)) + 0.5 * math.log(2.0 * math.pi)
        loss: Tensor = nll[:, 0].mean()
        if nll.shape[1] > 1:
            loss = loss + nll[:, 1:].mean()
        return loss


@torch.no_grad()
def port_of(ours: DynamicsModel) -> Model:
    """The port with the weights of one of our models that appends the context, or gates the actions with it."""
    config, spec = ours.config, ours.spec
    if config.conditioning is not Conditioning.CONCAT:
        raise ValueError(f"the plain port appends the context, came a model conditioned by {config.conditioning}")
    states = spec.observation_dim * (2 if config.next_observation_input else 1)
    port = Model(states, spec.action_dim, config.context_dim, config.hidden, ours.target_dim, config.action_gate)
    port.log_var_range = (config.log_var_min, config.log_var_max)
    for i, (mine, theirs) in enumerate(zip(_linears(port.layers), _linears(ours.layers), strict=True)):
        weight: Tensor = theirs.weight
        if i == 0:
            s = spec.observation_dim
            # Ours takes (observation, action, next observation); the port takes both states, then the action.
            parts = [weight[:, :s], weight[:, s + spec.action_dim :], weight[:, s : s + spec.action_dim]]
            weight = torch.cat([*parts, *(layer.weight for layer in _linears(ours.context_layers))], dim=1)
        mine.weight.copy_(weight)
        mine.bias.copy_(theirs.bias)
    for mine, weight, bias in zip(
        (port.mean, port.log_var), ours.head.weight.chunk(2), ours.head.bias.chunk(2), strict=True
    ):
        mine.weight.copy_(weight)
        mine.bias.copy_(bias)
    port.context.copy_(ours.prior_context)
    return port


def _linears(layers: nn.ModuleList) -> list[nn.Linear]:
    return [cast(nn.Linear, layer) for layer in layers]


@torch.no_grad()
def batch_of(ours: DynamicsModel, rows: Transitions) -> Batch:
    """Transitions [n, dim] of one task as the port takes them, normalised once."""
    states = [ours.observation_norm(rows.observation)]
    if ours.config.next_observation_input:
        states.append(ours.observation_norm(rows.next_observation))
    target = [rows.reward[:, None]]
    if ours.spec.varies is Varies.DYNAMICS:
        target.append(rows.next_observation - rows.observation)
    return Batch(torch.cat(states, 1), ours.spec.to_unit_action(rows.action), ours.target_norm(torch.cat(target, 1)))
