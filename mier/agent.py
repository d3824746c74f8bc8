"""The meta-trained networks of one checkpoint, wired together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mier.adaptation import Adaptation, adapt
from mier.config import AdaptConfig, Configuration
from mier.networks import DynamicsModel, Policy, TwinCritic
from mier.types import EnvSpec, Transitions
from mier.world import shared_dynamics


@dataclass
class Agent:
    """Model, policy and critics of one family, and the contexts that its training tasks adapt to."""

    spec: EnvSpec
    configuration: Configuration
    model: DynamicsModel
    policy: Policy
    critic: TwinCritic
    log_alpha: float
    training_contexts: Tensor
    """[tasks, context_dim]"""
    dynamics: DynamicsModel | None = None
    """`mier.world.shared_dynamics`, where the configuration has it."""
    gate_model: DynamicsModel | None = None
    """As `model`, but learned apart, under the same contexts: where the configuration has a gate."""
    gate_dynamics: DynamicsModel | None = None
    """As `dynamics`, but learned apart: where the configuration has both."""

    @staticmethod
    def build(spec: EnvSpec, configuration: Configuration, training_tasks: int) -> Agent:
        """Freshly initialised networks, drawn from torch's current random state."""
        dim = configuration.model.context_dim
        return Agent(
            spec,
            configuration,
            DynamicsModel(spec, configuration.model, configuration.adapt),
            Policy(spec, dim, configuration.sac),
            TwinCritic(spec, dim, configuration.sac),
            0.0,
            torch.zeros(training_tasks, dim),
            _dynamics(spec, configuration),
            *gate_networks(spec, configuration),
        )

    @property
    def prior_context(self) -> Tensor:
        """[context_dim], the context before any data; a copy, so that no caller holds the model's own memory."""
        return self.model.prior_context.detach().clone()

    def adapt(self, transitions: Transitions, config: AdaptConfig | None = None) -> Adaptation:
        """Context adaptation from the prior to transitions [n, dim] of one task."""
        return adapt(self.model, transitions, config or self.configuration.adapt, self.training_contexts)

    def modules(self) -> dict[str, torch.nn.Module]:
        """Those that there are, by name."""
        names = ("model", "policy", "critic", "dynamics", "gate_model", "gate_dynamics")
        return {name: module for name in names if (module := getattr(self, name)) is not None}

    def freeze(self) -> Agent:
        """Evaluation mode without gradients; what a decoded checkpoint hands out."""
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        return self


def gate_networks(
    spec: EnvSpec, configuration: Configuration
) -> tuple[DynamicsModel, DynamicsModel | None] | tuple[None, None]:
    """Freshly initialised `gate_model` and `gate_dynamics`, where the configuration has a gate."""
    if not configuration.gate:
        return None, None
    with torch.random.fork_rng(devices=[]):
        model = DynamicsModel(spec, configuration.model, configuration.adapt)
        return model, _dynamics(spec, configuration)


def _dynamics(spec: EnvSpec, configuration: Configuration) -> DynamicsModel | None:
    if configuration.dynamics is None:
        return None
    # Drawn apart, so that the other networks of a seed are the same with and without.
    with torch.random.fork_rng(devices=[]):
        return shared_dynamics(spec, configuration.dynamics)
