"""Training a model by regression on rows whose contexts are known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mier.networks import DynamicsModel
from mier.types import Transitions

_LEARNING_RATE = 1e-3

Draw = Callable[[torch.Generator], tuple[Transitions, Tensor]]
"""A batch: rows [n, dim], and each row's context [n, context_dim]."""


def regress(
    model: DynamicsModel, normalizer_rows: Transitions, draw: Draw, steps: int, seed: int, weights: Tensor
) -> float:
    """Train in place by the NLL of the target's entries; their mean squared error, in units of variance, at the end.

    The rate falls to zero along a cosine: imagined episodes multiply whatever noise is left in the weights.

    Args:
        weights: [target_dim], of each entry's NLL; an entry of weight 0 is not learned.
    """
    generator = torch.Generator().manual_seed(seed)
    model.observation_norm.fit(normalizer_rows.observation)
    model.target_norm.fit(model.raw_target(normalizer_rows))
    model.requires_grad_(True)
    # Contexts are given, and inner rates belong to adaptation.
    parameters = [p for name, p in model.named_parameters() if name not in ("prior_context", "inner_log_rate")]
    optimizer = torch.optim.Adam(parameters, lr=_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    learned = weights > 0.0
    recent = torch.zeros(())
    for _ in range(steps):
        rows, context = draw(generator)
        # An axis of one row, since each has a context of its own.
        single = Transitions(*(field.unsqueeze(1) for field in rows))
        prediction, wanted = model(single, context), model.target(single)[:, 0]
        mean, log_var = prediction.mean[:, 0].float(), prediction.log_var[:, 0].float()
        error = (wanted - mean).square()
        loss = 0.5 * ((error * torch.exp(-log_var) + log_var) * weights).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent = torch.lerp(recent, error[:, learned].mean().detach(), 0.02)
    model.requires_grad_(False)
    return recent.item()
