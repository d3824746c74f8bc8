"""A context that follows its task: kept up as transitions come, found anew at episodes' ends and when the task changes.

Within an episode a recursive update takes each transition in (`mier.streaming`), with forgetting. At an episode's
end, and where the method has no recursive update, the batch solution over the present task's transitions takes its
place: beyond the training distribution the recursion starts too far from the solution to be trusted for long.
Transitions that surprise raise suspicion (`mier.change`); while it lasts nothing is taken in. Confirmed, the
transitions since are the new task's first; denied, the task is the same and the rows just came from where the model
is worse.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch

from mier.adaptation import Adaptation, adapt, nll, ood_score, require_finite
from mier.agent import Agent
from mier.change import ChangeWatch, changed, row_nlls
from mier.config import AdaptMethod
from mier.streaming import StreamingContext, observe
from mier.types import Transitions

_FORGETTING = 0.998
"""Of information per transition: an episode and a half ago counts half."""


@dataclass(frozen=True)
class Following:
    """What following one task has come to; immutable."""

    belief: StreamingContext
    watch: ChangeWatch
    rows: int
    """Transitions of the present task that were taken in."""

    def to_json(self) -> dict[str, Any]:
        belief = self.belief
        return {
            "mean": belief.mean.tolist(),
            "information": belief.information.tolist(),
            "misfit": belief.misfit,
            "belief_rows": belief.rows,
            "watch": asdict(self.watch),
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Exactly what was written."""
        mean, information = torch.tensor(tree["mean"]), torch.tensor(tree["information"], dtype=torch.float64)
        belief = StreamingContext(mean, information, tree["misfit"], tree["belief_rows"])
        return cls(belief, ChangeWatch(**tree["watch"]), tree["rows"])


@dataclass(frozen=True)
class Followed:
    """A step of it: the context to go on with."""

    state: Following
    adaptation: Adaptation
    """Of a recursive step the NLLs are those of the rows it took in, before it took them in."""
    changed: bool
    """The task is a new one: its transitions are the newest `state.rows`."""


def follow(agent: Agent, state: Following | None, rows: Transitions, *, episode_ended: bool) -> Followed | None:
    """Take in what came since `state` (None: begin).

    Args:
        rows: [n, dim], all transitions of the present task in the order in which they came.
        episode_ended: whether an episode ended among the new ones.

    Returns:
        None if nothing can be said yet: too few transitions, none that are new, or a suspicion that more must settle.

    Raises:
        NotFinite: the rows lead to no finite context.
    """
    config = agent.configuration.adapt
    if rows.size < config.min_transitions:
        return None
    if state is None:
        return _anew(agent, rows, changed=False)
    fresh = rows.rows(slice(state.rows, None))
    if fresh.size == 0:
        return None
    surprise = row_nlls(agent, fresh, state.belief.mean)
    watch = state.watch.after(surprise)
    if watch.alarmed:
        if watch.since < config.min_transitions:
            return None
        before, since = rows.rows(slice(0, -watch.since)), rows.rows(slice(-watch.since, None))
        if before.size >= config.min_transitions and changed(agent, before, since):
            return _anew(agent, since, changed=True)
        return _anew(agent, rows, changed=False)
    if episode_ended:
        return _anew(agent, rows, changed=False)
    if config.method is not AdaptMethod.GAUSS_NEWTON:
        return _anew(agent, rows, changed=False, watch=watch)
    belief = observe(agent.model, state.belief, fresh, config, agent.training_contexts, forgetting=_FORGETTING)
    require_finite(belief.mean)
    before_nll = nll(agent.model, fresh, agent.prior_context).item()
    score = ood_score(belief.mean, agent.training_contexts).item()
    found = Adaptation(belief.mean.numpy(), before_nll, surprise.mean().item(), score, rows.size)
    return Followed(Following(belief, watch, rows.size), found, changed=False)


def _anew(agent: Agent, rows: Transitions, *, changed: bool, watch: ChangeWatch | None = None) -> Followed:
    config, known = agent.configuration.adapt, agent.training_contexts
    found = adapt(agent.model, rows, config, known)
    context = torch.from_numpy(found.context)
    require_finite(context)
    belief = StreamingContext.after(agent.model, rows, context, config, known)
    watch = watch or ChangeWatch.of(agent, rows, context)
    return Followed(Following(belief, watch, rows.size), found, changed)
