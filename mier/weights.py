"""What a policy version pins: weights and the policy's own context, as values and as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mier import state_fit
from mier.agent import Agent
from mier.networks import Policy, TwinCritic
from mier.serialization import CorruptedData, pack, unpack


@dataclass(frozen=True, eq=False)
class PolicyWeights:
    """Actor, critics and temperature with the context that the actor is run under; immutable by convention."""

    state: dict[str, Tensor]
    """Keys policy.*, critic.*, log_alpha."""
    context: NDArray[np.float32]
    """[context_dim], the policy context"""

    @classmethod
    def of(cls, agent: Agent, context: NDArray[np.float32] | None = None) -> Self:
        """The agent's own weights under a context (None: the prior)."""
        own = agent.prior_context.cpu().numpy() if context is None else context
        return cls.of_modules(agent.policy, agent.critic, agent.log_alpha, own)

    @classmethod
    def of_modules(cls, policy: Policy, critic: TwinCritic, log_alpha: float, context: NDArray[np.float32]) -> Self:
        state = {f"policy.{k}": v.detach().cpu().clone() for k, v in policy.state_dict().items()}
        state |= {f"critic.{k}": v.detach().cpu().clone() for k, v in critic.state_dict().items()}
        return cls(state | {"log_alpha": torch.tensor(log_alpha)}, np.array(context, np.float32))

    def part(self, name: str) -> dict[str, Tensor]:
        """State of 'policy' or 'critic'."""
        prefix = name + "."
        return {k.removeprefix(prefix): v for k, v in self.state.items() if k.startswith(prefix)}

    def require_fit(self, agent: Agent) -> None:
        """Refuses weights that are of other networks than the agent's.

        Raises:
            CorruptedData: names the first tensor that does not fit.
        """
        expected = {f"policy.{k}": v for k, v in agent.policy.state_dict().items()}
        expected |= {f"critic.{k}": v for k, v in agent.critic.state_dict().items()}
        dim = agent.configuration.model.context_dim
        try:
            state_fit.require_state("weights", self.state, expected | {"log_alpha": torch.empty(())})
            state_fit.require_tensor("context", torch.from_numpy(self.context), (dim,))
        except ValueError as error:
            raise CorruptedData(f"expected weights of this checkpoint's networks, came others ({error})") from error

    def load_policy(self, agent: Agent) -> Policy:
        """A frozen policy with these weights.

        Raises:
            CorruptedData: they are of other networks than the agent's.
        """
        self.require_fit(agent)
        policy = Policy(agent.spec, agent.configuration.model.context_dim, agent.configuration.sac)
        policy.load_state_dict(self.part("policy"))
        policy.eval().requires_grad_(False)
        return policy

    def to_bytes(self) -> bytes:
        """Deterministic: equal weights give equal bytes, so a hash of them is their identity."""
        return pack({"state": self.state, "context": torch.from_numpy(self.context)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of `to_bytes`.

        Raises:
            CorruptedData: the bytes are truncated, altered, or something else.
        """
        tree = unpack(data)
        try:
            state, context = dict(tree["state"]), tree["context"]
            for name, value in state.items():
                state_fit.require_tensor(str(name), value, tuple(value.shape))
            state_fit.require_tensor("context", context, (None,))
            return cls(state, context.numpy())
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CorruptedData(f"expected policy weights, came another saved state ({error})") from error
