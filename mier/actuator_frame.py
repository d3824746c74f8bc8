"""The frame in which every actuator turns the way of the model's own: what policy and critic work in.

The model's action gate (`ModelConfig.action_gate`) reads an actuator's gain g from the context, as 1 + z. Negating an
actuator (g -> -g, a -> -a) changes neither the dynamics nor any reward that depends on |a|: a symmetry of every task
that differs in its actuators. In the frame a -> sign(g) a it holds by construction, so that a sign never seen in
training is no new task to the policy.
"""

from __future__ import annotations

import torch
from torch import Tensor


def actuator_signs(context: Tensor, actuators: int) -> Tensor:
    """Sign [..., actuators] of each gain that `context` [..., context_dim] stands for; +1 for a gain of 0."""
    return torch.where(context[..., :actuators] < -1.0, -1.0, 1.0)


def unsigned_context(context: Tensor, actuators: int) -> Tensor:
    """The context [..., context_dim] with gains made positive: what the frame leaves to tell tasks apart."""
    gains = (1.0 + context[..., :actuators]).abs()
    return torch.cat([gains - 1.0, context[..., actuators:]], -1)
