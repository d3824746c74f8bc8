"""PEARL's task encoder: from transitions to a Gaussian over the latent context (Rakelly et al. 2019, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mier.config import SacConfig
from mier.normalization import Normalizer
from mier.types import EnvSpec, Transitions, Varies

_MINIMUM_VARIANCE = 1e-7


@dataclass(frozen=True)
class PearlConfig:
    """The baseline's hyper-parameters: its authors' own, on the same soft actor-critic as ours."""

    name: str = "pearl"
    context_dim: int = 5
    hidden: tuple[int, ...] = (200, 200, 200)
    kl_weight: float = 0.1
    learning_rate: float = 3e-4
    sac: SacConfig = field(default_factory=lambda: SacConfig(reward_scale=5.0))


class Posterior(NamedTuple):
    """Diagonal Gaussian q(z | c), [..., context_dim] each."""

    mean: Tensor
    variance: Tensor


class ContextEncoder(nn.Module):
    """One Gaussian factor per transition; their product is the posterior (eq. 2), whatever the order of rows."""

    def __init__(self, spec: EnvSpec, config: PearlConfig) -> None:
        super().__init__()
        self.spec = spec
        self.observation_norm = Normalizer(spec.observation_dim)
        self.reward_norm = Normalizer(1)
        # Where the dynamics vary, what a task is shows in the next state alone.
        self.sees_next = spec.varies is Varies.DYNAMICS
        inputs = spec.observation_dim * (2 if self.sees_next else 1) + spec.action_dim + 1
        sizes = [inputs, *config.hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], 2 * config.context_dim)

    def forward(self, rows: Transitions) -> Posterior:
        """Rows [..., n, dim] of each task -> its posterior [..., context_dim]."""
        inputs = [
            self.observation_norm(rows.observation),
            self.spec.to_unit_action(rows.action),
            self.reward_norm(rows.reward[..., None]),
        ]
        if self.sees_next:
            inputs.append(self.observation_norm(rows.next_observation))
        h = torch.cat(inputs, -1)
        for layer in self.layers:
            h = F.relu(layer(h))
        mean, raw = self.head(h).float().chunk(2, -1)
        precision = 1.0 / F.softplus(raw).clamp_min(_MINIMUM_VARIANCE)
        variance = 1.0 / precision.sum(-2)
        return Posterior(variance * (mean * precision).sum(-2), variance)


def kl_to_prior(posterior: Posterior) -> Tensor:
    """KL(q || N(0, I)) summed over tasks and entries: the information bottleneck (eq. 1)."""
    mean, variance = posterior
    return 0.5 * (mean.square() + variance - 1.0 - variance.log()).sum()
