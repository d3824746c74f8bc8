"""Tasks that nobody gave: contexts beyond those of the training tasks, with rewards from the model.

Out of distribution the model's reward extrapolates far better than a policy does. So the policy is trained, and sent
to explore, under contexts further out in the directions in which training tasks differ; when such a task then comes,
its policy is there already, and so is experience to relabel. No reward of a task outside the training set is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mier.adaptation import ood_score
from mier.networks import DynamicsModel
from mier.types import Transitions


def dreamed_contexts(known: Tensor, count: int, reach: float, generator: torch.Generator) -> Tensor:
    """Contexts [count, context_dim] on rays from the middle of the known ones through one of them.

    A ray is drawn with the square of its context's distance, since the middle's own neighbours point anywhere; the
    distance along it is uniform up to `reach`.

    Args:
        known: [k, context_dim], contexts of training tasks.
        reach: in the units of `Adaptation.ood_score`: RMS over entries, in standard deviations of the known contexts.
    """
    mean, score = known.mean(0), ood_score(known, known)
    offset = known - mean
    # Contexts that are not finite are for the caller to notice, in what comes of them.
    weights = score.square().cpu().nan_to_num(1.0) + 1e-12
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    distance = reach * torch.rand(count, generator=generator)
    ray = offset[chosen] / score[chosen].clamp_min(1e-6)[:, None]
    return mean + distance.to(ray)[:, None] * ray


def beyond(contexts: Tensor, known: Tensor) -> Tensor:
    """[n] of bool: which of the contexts lie further out than any known one does."""
    return ood_score(contexts, known) > ood_score(known, known).max()


@torch.no_grad()
def dreamed_rewards(model: DynamicsModel, context: Tensor, rows: Transitions) -> Transitions:
    """Rows [tasks, n, dim] with the model's expected reward under each task's context [tasks, context_dim]."""
    return rows._replace(reward=model.target_norm.inverse(model(rows, context).mean)[..., 0])


def with_hindsight(dreamed: Tensor, known: Tensor, rows: Transitions, more: Transitions) -> Transitions:
    """Rows [tasks, n, dim] of which, for tasks beyond the known ones, half make way for the best of `more`.

    What scores well on a task lies near what its policy will do (hindsight, after Andrychowicz et al. 2017). Within the
    known tasks rows stay as they come: there the policy is near its best, and needs to know what is worse.

    Args:
        dreamed, known: contexts [tasks, context_dim] and [k, context_dim].
        rows, more: with the dreamed tasks' own rewards; `more` [tasks, m, dim] with m at least half of n.
    """
    half = rows.reward.shape[1] // 2
    best, far = best_rows(more, half), beyond(dreamed, known)
    mixed = (torch.cat([old[:, half:], new], 1) for old, new in zip(rows, best, strict=True))
    return Transitions(
        *(torch.where(far.view(-1, *[1] * (old.ndim - 1)), new, old) for old, new in zip(rows, mixed, strict=True))
    )


def best_rows(rows: Transitions, count: int) -> Transitions:
    """The `count` rows of each task with the highest reward: [tasks, n, dim] -> [tasks, count, dim]."""
    chosen = rows.reward.topk(count, -1).indices
    return Transitions(*(f.take_along_dim(chosen[..., None] if f.ndim == 3 else chosen, 1) for f in rows))
