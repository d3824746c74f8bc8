"""Whether the plain port and our model differentiate alike."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from mier.networks import DynamicsModel
from mier_bench.plain_port.model import Model


def gradient_difference(ours: DynamicsModel, port: Model) -> float:
    """Largest difference of the two models' gradients, relative to the largest entry of each parameter's."""
    spec = ours.spec
    first = _gradient(port.layers[0].weight)
    states = first.shape[1] - spec.action_dim - ours.free_dim
    s = spec.observation_dim
    # Ours takes (observation, action, next observation), and the context by a layer of its own.
    columns = torch.cat([torch.arange(s), torch.arange(states, states + spec.action_dim), torch.arange(s, states)])
    pairs = [(_gradient(ours.layers[0].weight), first[:, columns])]
    if ours.free_dim:
        pairs.append((_gradient(ours.context_layers[0].weight), first[:, states + spec.action_dim :]))
    for mine, theirs in zip(ours.layers[1:], port.layers[1:], strict=True):
        pairs.append((_gradient(mine.weight), _gradient(theirs.weight)))
    for mine, theirs in zip(ours.layers, port.layers, strict=True):
        pairs.append((_gradient(mine.bias), _gradient(theirs.bias)))
    for kind in ("weight", "bias"):
        both = [_gradient(getattr(layer, kind)) for layer in (port.mean, port.log_var)]
        pairs.append((_gradient(getattr(ours.head, kind)), torch.cat(both)))
    pairs.append((_gradient(ours.prior_context), _gradient(port.context)))
    return max(((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item() for a, b in pairs)


def _gradient(parameter: object) -> Tensor:
    gradient = cast(Tensor, parameter).grad
    assert gradient is not None, "both losses were differentiated"
    return gradient
