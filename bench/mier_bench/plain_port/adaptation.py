"""Adapting the context, and meta-training through it (paper, section 4.1 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mier_bench.plain_port.model import Batch, Model

ADAPT_RATE = 0.1
TRAINING_STEPS = 2
TEST_STEPS = 10
GRADIENT_CLIP = 10.0
CONTEXT_PENALTY = 0.01


def adapt(model: Model, batch: Batch, steps: int, *, training: bool) -> Tensor:
    """Context [context_dim] after gradient steps from the prior; past the second, at a tenth of the rate.

    In training the steps stay in the graph: the outer gradient goes through them.
    """
    context: Tensor = model.context if training else model.context.detach()
    for step in range(steps):
        if not training:
            context = context.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.loss(batch, context), context, create_graph=training)
        norm = gradient.norm()
        gradient = gradient * (GRADIENT_CLIP / norm.clamp(min=GRADIENT_CLIP))
        context = context - (ADAPT_RATE if step < TRAINING_STEPS else ADAPT_RATE / 10.0) * gradient
    return context if training else context.detach()


def meta_loss(model: Model, adaptation: Sequence[Batch], evaluation: Sequence[Batch]) -> Tensor:
    """J_p, averaged over the tasks, with the penalty on adapted contexts."""
    losses = []
    for before, after in zip(adaptation, evaluation, strict=True):
        context = adapt(model, before, TRAINING_STEPS, training=True)
        losses.append(model.loss(after, context) + CONTEXT_PENALTY * context.square().sum())
    return torch.stack(losses).mean()


def meta_step(
    model: Model, optimizer: torch.optim.Optimizer, adaptation: Sequence[Batch], evaluation: Sequence[Batch]
) -> Tensor:
    """One step of meta-training; returns the loss."""
    loss = meta_loss(model, adaptation, evaluation)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
    optimizer.step()
    return loss.detach()
