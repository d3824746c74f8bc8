"""One control tick of many sessions: shared weights in one pass with a context for each row, own weights stacked.

Sessions on the checkpoint's weights are rows of the policy's batch; k fine-tuned ones are k rows, each multiplied by
its own weights, [k, in, out].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mier.actuator_frame import actuator_signs, unsigned_context
from mier.networks import Policy
from mier.types import EnvSpec


class StackedPolicies:
    """Policies of one shape with weights, and normalisers, of their own: row i goes through policy i."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        if not policies:
            raise ValueError("expected at least one policy, came none")
        self.frame_dim = policies[0].frame_dim
        norms = [(p.observation_norm, p.context_norm) for p in policies]
        self._mean = torch.stack([torch.cat([n.mean for n in both]) for both in norms])
        self._std = torch.stack([torch.cat([n.std for n in both]) for both in norms])
        layers = [[*p.layers, p.head] for p in policies]
        # [k, in, out], laid out as the product reads them.
        self._weights = [torch.stack([layer.weight.detach().T for layer in same]) for same in zip(*layers, strict=True)]
        self._biases = [
            torch.stack([layer.bias.detach()[None] for layer in same]) for same in zip(*layers, strict=True)
        ]

    def __call__(self, observation: Tensor, context: Tensor, noise: Tensor) -> Tensor:
        """[k, observation_dim], [k, context_dim], [k, action_dim] -> actions [k, action_dim] in [-1, 1]."""
        seen = unsigned_context(context, self.frame_dim) if self.frame_dim else context
        h = ((torch.cat([observation, seen], -1) - self._mean) / self._std)[:, None]
        last = len(self._weights) - 1
        for i, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if i < last:
                h = F.relu(h)
        mean, log_std = h[:, 0].chunk(2, -1)
        if self.frame_dim:
            mean = mean * actuator_signs(context, self.frame_dim)
        return torch.tanh(mean + log_std.clamp(-20.0, 2.0).exp() * noise)


class Tick:
    """Sessions that act together; made anew when one of them gets another version."""

    def __init__(self, spec: EnvSpec, shared: Policy, contexts: Tensor, own: Mapping[int, Policy]) -> None:
        """Sessions in the order of their contexts [n, context_dim], each on the shared policy but those in `own`."""
        if outside := [i for i in own if not 0 <= i < len(contexts)]:
            raise ValueError(f"expected own policies of sessions 0 to {len(contexts) - 1}, came {outside}")
        self._spec, self._shared = spec, shared
        alone = torch.tensor(sorted(own), dtype=torch.int64)
        together = torch.ones(len(contexts), dtype=torch.bool)
        together[alone] = False
        self._contexts = contexts
        self._alone, self._together = alone, together.nonzero().squeeze(-1)
        self._own = StackedPolicies([own[int(i)] for i in alone]) if len(alone) else None

    @torch.inference_mode()
    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """[n, observation_dim] and standard normal noise [n, action_dim] (0: the mean action) -> actions
        [n, action_dim] in environment units."""
        expected = (len(self._contexts), self._spec.observation_dim)
        if observation.shape != expected:
            raise ValueError(f"expected observations {list(expected)}, came {list(observation.shape)}")
        if self._own is None:
            return self._spec.from_unit_action(self._shared(observation, self._contexts, noise))
        unit = torch.empty_like(noise)
        for index, policy in ((self._together, self._shared), (self._alone, self._own)):
            if len(index):
                unit[index] = policy(observation[index], self._contexts[index], noise[index])
        return self._spec.from_unit_action(unit)
