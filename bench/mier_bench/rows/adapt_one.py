"""Row 6: one context adaptation on 400 transitions, to the held-out NLL of the paper's 10 gradient steps.

The gradient steps fix what is to be reached. Ours is timed twice: the least Gauss-Newton that reaches it (found first,
from the cheapest on, and named in the notes), and `adapt` as the checkpoint configures it, which goes on to a better
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mier.adaptation import infer_context, nll, split_holdout
from mier.agent import Agent
from mier.types import Transitions
from mier_bench import bundled
from mier_bench.interleaving import Pace, interleave
from mier_bench.plain_port import adaptation as plain
from mier_bench.plain_port.model import batch_of, port_of
from mier_bench.row import MILLISECONDS, Row, Target, Unequal, Wanted, compared, require_equal
from mier_envs.families import FAMILIES

ID = 6
PEER = "plain port, 10 gradient steps"
TARGET = Target(Wanted.AT_LEAST, 3.0)
TRAJECTORIES = 2


def rows(pace: Pace) -> list[Row]:
    return [row for name in bundled.FAMILY_NAMES for row in _of(name, pace)]


def _of(name: str, pace: Pace) -> list[Row]:
    agent = bundled.checkpoint(name).agent
    model, task = agent.model, FAMILIES[name].test_tasks[1]
    transitions = bundled.trajectories(name, [task], TRAJECTORIES).rows(0)
    fit, held = split_holdout(transitions, agent.configuration.adapt.holdout_fraction)
    port = port_of(model).requires_grad_(False)
    batch, unseen = batch_of(model, fit), batch_of(model, held)
    same = abs(port.loss(unseen, port.context).item() - nll(model, held, model.prior_context).item())
    scale = max(1.0, abs(port.loss(unseen, port.context).item()))
    checked = {"nll under the prior, relative": require_equal("nll under the prior", same / scale, 1e-4)}
    reached = port.loss(unseen, plain.adapt(port, batch, plain.TEST_STEPS, training=False)).item()
    least = _least(agent, fit, held, reached)
    full = agent.adapt(transitions)
    timed = interleave(
        {
            "least": least.run,
            "full": lambda: agent.adapt(transitions),
            "port": lambda: plain.adapt(port, batch, plain.TEST_STEPS, training=False),
        },
        pace,
    )
    what = f"adapt on 400 transitions, {task.name}"
    notes = {
        "least": f"{least.rows} rows, {least.steps} steps: held-out NLL {least.nll:.3f}; the port's {reached:.3f}",
        "full": f"held-out NLL {full.nll_after:.3f}; the port's {reached:.3f}",
    }
    return [
        compared(
            ID,
            f"{what}; {kind}",
            TARGET,
            MILLISECONDS,
            timed[key],
            (PEER, timed["port"]),
            checked=checked,
            notes=notes[key],
        )
        for key, kind in (("least", "Gauss-Newton to the same NLL"), ("full", "as configured, to a better NLL"))
    ]


@dataclass(frozen=True)
class _Least:
    rows: int
    steps: int
    nll: float
    run: Callable[[], Tensor]


def _least(agent: Agent, fit: Transitions, held: Transitions, reached: float) -> _Least:
    config = replace(agent.configuration.adapt, starts=1)
    for every, steps in ((5, 2), (5, 3), (2, 3), (1, 3), (1, 5), (1, 10)):
        few = fit.rows(slice(None, None, every))
        settings = replace(config, gauss_newton_steps=steps)

        def run(few: Transitions = few, settings: object = settings) -> Tensor:
            return infer_context(agent.model, few, settings)  # type: ignore[arg-type]

        with torch.no_grad():
            found = nll(agent.model, held, run()).item()
        if found <= reached:
            return _Least(few.size, steps, found, run)
    raise Unequal(f"Gauss-Newton: expected a held-out NLL of at most {reached:.3f}, came {found:.3f}")
