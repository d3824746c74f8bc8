"""Has the task changed in mid-run? Suspected row by row, and confirmed before anything is thrown away.

Suspicion is a cumulative sum over single transitions: each row counts as surprising or not, by whether its NLL under
the present context is above what all but a tenth of the known rows show. Under an unchanged task that happens one
time in ten, so the log likelihood ratio of "one in two" against "one in ten" falls on average; a change makes it rise
within a few rows. The row at which it last was zero is where the change must have begun.

Policies move, and a model is not equally good everywhere, so rows may surprise although the task is the same.
Confirmation asks what only a change explains: two contexts, one for the rows before and one for those since, must
beat one context for all rows (a generalised likelihood ratio), by more per new row than the model's own errors are
worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mier.adaptation import infer_context, row_nll
from mier.agent import Agent
from mier.types import Transitions

_USUAL, _CHANGED = 0.1, 0.5
"""Shares of surprising rows, before a change and after it."""
_ALARM = 12.0
"""Log likelihood ratio: of independent rows of an unchanged task one in exp(12) raises it; eight surprising ones do."""
_MIN_GAIN = 0.5
"""Nats per new row by which two contexts must beat one; a few fitted numbers are worth less by chance."""
_COMPARED = 400
"""Rows of before at most, the newest: more of them add time, and nothing else."""


@dataclass(frozen=True)
class ChangeWatch:
    """Suspicion so far; immutable."""

    limit: float
    """A row whose NLL is above it is surprising."""
    evidence: float = 0.0
    """Log likelihood ratio of a change; never below zero."""
    since: int = 0
    """So many rows ago the evidence last was zero."""

    @classmethod
    def of(cls, agent: Agent, known: Transitions, context: Tensor) -> ChangeWatch:
        """Judged by how the known rows [n, dim] look under the context [context_dim] that was found from them."""
        return cls(torch.quantile(row_nlls(agent, known, context), 1.0 - _USUAL).item())

    def after(self, nlls: Tensor) -> ChangeWatch:
        """nlls [n]: of further rows, oldest first; nothing is counted after an alarm."""
        watch = self
        for surprising in (nlls > self.limit).tolist():
            if watch.alarmed:
                watch = replace(watch, since=watch.since + 1)
                continue
            step = math.log(_CHANGED / _USUAL) if surprising else math.log((1.0 - _CHANGED) / (1.0 - _USUAL))
            evidence = max(0.0, watch.evidence + step)
            watch = replace(watch, evidence=evidence, since=watch.since + 1 if evidence else 0)
        return watch

    @property
    def alarmed(self) -> bool:
        return self.evidence > _ALARM


@torch.no_grad()
def row_nlls(agent: Agent, rows: Transitions, context: Tensor) -> Tensor:
    """[n], NLL of each row under a context [context_dim]; what is not finite counts as infinite."""
    model = agent.model
    found = row_nll(model(rows, context), model.target(rows), model.target_weights)
    return torch.nan_to_num(found, nan=math.inf, posinf=math.inf)


@torch.no_grad()
def gain_of_two(agent: Agent, before: Transitions, since: Transitions) -> float:
    """Nats per row of `since` by which a context of their own, and one for the rest, beat one for all rows.

    The noise has one scale for all rows, fitted to them where it is above what the model predicts (as in
    `mier.adaptation.gauss_newton_context`): rows that no context explains are no other task.
    """
    model, config, known = agent.model, agent.configuration.adapt, agent.training_contexts
    before = before.rows(slice(max(0, before.size - _COMPARED), None))
    both = Transitions.concatenate([before, since])
    weight = model.target_weights.sum()

    def context(rows: Transitions) -> Tensor:
        return infer_context(model, rows, config, later_steps=config.later_steps, known=known)

    one = context(both)
    precision = torch.exp(-model(both, one).log_var) * model.target_weights

    def misfit(mean: Tensor) -> float:
        """Mean square error in units of what the model predicts."""
        return ((model.target(both) - mean).square() * precision).sum(-1).mean().item() / weight.item()

    apart = torch.cat([model(rows, context(rows)).mean for rows in (before, since)])
    gain = _cost(misfit(model(both, one).mean)) - _cost(misfit(apart))
    return 0.5 * weight.item() * gain * both.size / since.size


def _cost(misfit: float) -> float:
    """rho: linear as far as the predicted noise goes, logarithmic beyond."""
    if not math.isfinite(misfit):
        return math.inf
    return misfit if misfit <= 1.0 else 1.0 + math.log(misfit)


def changed(agent: Agent, before: Transitions, since: Transitions) -> bool:
    """Whether the rows `since` are of another task than those `before`."""
    return gain_of_two(agent, before, since) > _MIN_GAIN
