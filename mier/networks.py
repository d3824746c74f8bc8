"""Context-conditioned networks: the dynamics and reward model, the policy, the twin critics.

All take a context apart from their rows: rows are [..., n, dim] and a context [..., context_dim] holds for all n
of them, which is what lets one adapted context meet a batch without being copied to every row.

    observation ─┐ normalise
    action ──────┤ × (1 + gate(z))      ┌─ mean     [..., n, target_dim]   (normalised target units)
    next_obs ────┘────── hidden ────────┤
                     z by concat / FiLM └─ log_var  [..., n, target_dim]   (clamped)

The target is (reward) where only the reward varies, else (reward, delta observation).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mier.actuator_frame import actuator_signs, unsigned_context
from mier.config import AdaptConfig, Conditioning, ModelConfig, SacConfig
from mier.normalization import Normalizer
from mier.types import EnvSpec, Transitions, Varies

LEAKY_SLOPE = 0.2


class Prediction(NamedTuple):
    """Diagonal Gaussian over the normalised target, [..., n, target_dim] each."""

    mean: Tensor
    log_var: Tensor


class LinearHead(NamedTuple):
    """Pieces of mean = offset + features z, for the closed form."""

    offset: Tensor
    """[..., n, target_dim]"""
    features: Tensor
    """[..., n, target_dim, context_dim]"""
    log_var: Tensor
    """[..., n, target_dim]"""


class DynamicsModel(nn.Module):
    """p(reward, next state | state, action; theta, context) (paper, section 4.1)."""

    def __init__(self, spec: EnvSpec, config: ModelConfig, adapt: AdaptConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.gate_dim = spec.action_dim if config.action_gate else 0
        self.free_dim = config.context_dim - self.gate_dim
        if self.free_dim < 0:
            raise ValueError(
                f"an action gate over {spec.action_dim} actions needs context_dim >= {spec.action_dim}, "
                f"came {config.context_dim}"
            )
        self.target_dim = 1 + (spec.observation_dim if spec.varies is Varies.DYNAMICS else 0)
        self.observation_norm = Normalizer(spec.observation_dim)
        self.target_norm = Normalizer(self.target_dim)
        uses_next = config.next_observation_input
        if uses_next and spec.varies is Varies.DYNAMICS:
            raise ValueError("next_observation_input is only legitimate where the next observation is not predicted")
        input_dim = spec.observation_dim * (2 if uses_next else 1) + spec.action_dim
        sizes = [input_dim, *config.hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        linear_head = config.conditioning is Conditioning.LINEAR_HEAD
        if not self.free_dim:
            self.context_layers = nn.ModuleList()
        elif config.conditioning is Conditioning.CONCAT:
            self.context_layers = nn.ModuleList([nn.Linear(self.free_dim, sizes[1], bias=False)])
        elif config.conditioning is Conditioning.FILM:
            self.context_layers = nn.ModuleList(nn.Linear(self.free_dim, 2 * b, bias=False) for b in sizes[1:])
            for layer in self.context_layers:
                torch.nn.init.normal_(next(layer.parameters()), std=0.1)
        else:
            self.context_layers = nn.ModuleList()
        outputs = self.target_dim * ((2 + config.context_dim) if linear_head else 2)
        self.head = nn.Linear(sizes[-1], outputs)
        self.prior_context = nn.Parameter(torch.zeros(config.context_dim), requires_grad=config.trained_prior)
        # Inner learning rates live here because meta-training may train them with the weights.
        rates = torch.full((adapt.steps, config.context_dim), math.log(adapt.learning_rate))
        self.inner_log_rate = nn.Parameter(rates, requires_grad=adapt.learned_rate)
        self.target_weights = nn.Buffer(self._target_weights(), persistent=False)

    def _target_weights(self) -> Tensor:
        # The reward weighs as much as the whole state: NLL(reward) + mean over dims of NLL(state).
        weights = torch.ones(self.target_dim)
        if self.target_dim > 1:
            weights[1:] = 1.0 / (self.target_dim - 1)
        return weights

    def inputs(self, transitions: Transitions, context: Tensor) -> Tensor:
        """[..., n, input_dim]: states normalised, actions in [-1, 1] and through the gate, if there is one."""
        action = self.spec.to_unit_action(transitions.action)
        if self.gate_dim:
            action = action * (1.0 + context[..., None, : self.gate_dim])
        inputs = [self.observation_norm(transitions.observation), action]
        if self.config.next_observation_input:
            inputs.append(self.observation_norm(transitions.next_observation))
        return torch.cat(inputs, -1)

    def hidden(self, transitions: Transitions, context: Tensor) -> Tensor:
        """[..., n, hidden]; the linear head ignores the context here."""
        h = self.inputs(transitions, context)
        free = context[..., None, self.gate_dim :]
        film = self.config.conditioning is Conditioning.FILM and self.free_dim > 0
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if film:
                scale, shift = self.context_layers[i](free).chunk(2, -1)
                h = h * (1.0 + scale) + shift
            elif i == 0 and len(self.context_layers):
                h = h + self.context_layers[0](free)
            h = F.leaky_relu(h, LEAKY_SLOPE)
        return h

    def linear_head(self, transitions: Transitions) -> LinearHead:
        """Offset, features and log variance; the features are bounded so that the solve stays conditioned."""
        k = self.config.context_dim
        out = self.head(self.hidden(transitions, self.prior_context.detach()))
        offset, raw_log_var, raw = out.split([self.target_dim, self.target_dim, self.target_dim * k], -1)
        features = 2.0 * torch.tanh(raw.unflatten(-1, (self.target_dim, k)) / 2.0)
        return LinearHead(offset, features, self._clamp(raw_log_var))

    def forward(self, transitions: Transitions, context: Tensor) -> Prediction:
        """Rows [..., n, dim] and context [..., context_dim] -> prediction of the normalised target."""
        if self.config.conditioning is Conditioning.LINEAR_HEAD:
            offset, features, log_var = self.linear_head(transitions)
            return Prediction(offset + (features @ context[..., None, :, None]).squeeze(-1), log_var)
        mean, raw_log_var = self.head(self.hidden(transitions, context)).chunk(2, -1)
        return Prediction(mean, self._clamp(raw_log_var))

    def raw_target(self, transitions: Transitions) -> Tensor:
        """[..., n, target_dim]: (reward, delta observation) in environment units."""
        parts = [transitions.reward[..., None]]
        if self.spec.varies is Varies.DYNAMICS:
            parts.append(transitions.next_observation - transitions.observation)
        return torch.cat(parts, -1)

    def target(self, transitions: Transitions) -> Tensor:
        """The same, normalised."""
        normalised: Tensor = self.target_norm(self.raw_target(transitions))
        return normalised

    def _clamp(self, raw: Tensor) -> Tensor:
        low, high = self.config.log_var_min, self.config.log_var_max
        # A sigmoid clamp keeps a gradient at both ends, which a hard one loses.
        return low + (high - low) * torch.sigmoid(raw)


class Policy(nn.Module):
    """Tanh-Gaussian policy pi(a | s, z) (paper, section 4.2); actions in [-1, 1]."""

    def __init__(self, spec: EnvSpec, context_dim: int, config: SacConfig) -> None:
        super().__init__()
        self.frame_dim = spec.action_dim if config.actuator_frame else 0
        self.observation_norm = Normalizer(spec.observation_dim)
        self.context_norm = Normalizer(context_dim)
        sizes = [spec.observation_dim + context_dim, *config.hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], 2 * spec.action_dim)

    def distribution(self, observation: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """observation [n, observation_dim], context [n, context_dim] -> mean, log_std [n, action_dim] before tanh."""
        seen = unsigned_context(context, self.frame_dim) if self.frame_dim else context
        h = torch.cat([self.observation_norm(observation), self.context_norm(seen)], -1)
        for layer in self.layers:
            h = F.relu(layer(h))
        mean, log_std = self.head(h).chunk(2, -1)
        if self.frame_dim:
            mean = mean * actuator_signs(context, self.frame_dim)
        return mean, log_std.clamp(-20.0, 2.0)

    def sample(self, observation: Tensor, context: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised action [n, action_dim] and its log probability [n], from standard normal noise."""
        mean, log_std = self.distribution(observation, context)
        raw = mean + log_std.exp() * noise
        gaussian = -0.5 * (noise**2 + math.log(2.0 * math.pi)) - log_std
        # log(1 - tanh(x)^2), in the form that does not underflow (Haarnoja et al. 2018, appendix C).
        squash = 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))
        return torch.tanh(raw), (gaussian - squash).sum(-1)

    def forward(self, observation: Tensor, context: Tensor, noise: Tensor) -> Tensor:
        """The action alone; noise 0 is the deterministic action."""
        mean, log_std = self.distribution(observation, context)
        return torch.tanh(mean + log_std.exp() * noise)


class TwinCritic(nn.Module):
    """Two Q functions Q(s, a, z), evaluated as one batched product."""

    def __init__(self, spec: EnvSpec, context_dim: int, config: SacConfig) -> None:
        super().__init__()
        self.frame_dim = spec.action_dim if config.actuator_frame else 0
        self.observation_norm = Normalizer(spec.observation_dim)
        self.context_norm = Normalizer(context_dim)
        sizes = [spec.observation_dim + context_dim + spec.action_dim, *config.hidden, 1]
        self.weights = nn.ParameterList(torch.empty(2, a, b) for a, b in pairwise(sizes))
        self.biases = nn.ParameterList(torch.empty(2, 1, b) for b in sizes[1:])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1.0 / math.sqrt(weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, observation: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """[n, ...] each, the action in [-1, 1] -> [2, n]."""
        if self.frame_dim:
            action = action * actuator_signs(context, self.frame_dim)
            context = unsigned_context(context, self.frame_dim)
        x = torch.cat([self.observation_norm(observation), self.context_norm(context), action], -1)
        h = x.expand(2, -1, -1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if i + 1 < len(self.weights):
                h = F.relu(h)
        return h.squeeze(-1)
