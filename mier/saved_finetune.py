"""The parts of a fine-tune's save, checked as they are read: a save that fits its digest may still hold anything."""

from __future__ import annotations

from typing import Any

import torch

from mier import sac, state_fit
from mier.agent import Agent
from mier.judge import Best
from mier.types import EnvSpec, Transitions


def require_sac(own: sac.SacState, saved: Any) -> None:
    """ValueError unless it is a state of these networks and optimisers."""
    for name in saved:
        mine = getattr(own, name)
        if isinstance(mine, torch.optim.Optimizer):
            state_fit.require_adam(name, saved[name], mine)
        elif isinstance(mine, torch.nn.Module):
            state_fit.require_state(name, saved[name], mine.state_dict())
    state_fit.require_tensor("log_alpha", saved["log_alpha"], ())


def read_pool(spec: EnvSpec, saved: Any) -> Transitions:
    """The synthetic transitions of a save; ValueError if they are none."""
    pool = Transitions(**saved)
    shapes = ((None, spec.observation_dim), (None, spec.action_dim), (None,), (None, spec.observation_dim), (None,))
    for name, field, shape in zip(Transitions._fields, pool, shapes, strict=True):
        # Of any value: what learning makes of them is seen by its losses.
        state_fit.require_tensor(f"pool.{name}", field, shape, finite=False)
    if len({len(field) for field in pool}) != 1 or not len(pool.reward):
        raise ValueError("pool: expected fields of one length, at least 1; came others")
    return pool


def read_best(agent: Agent, saved: Any) -> Best:
    """The best policy so far; ValueError if it is none, or of other networks than the agent's."""
    best = Best.from_tree(saved)
    if not isinstance(best.imagined_return, float) or type(best.updates) is not int or best.updates < 0:
        raise ValueError("best: expected a return and the number of its updates, came others")
    best.weights.require_fit(agent)
    return best
