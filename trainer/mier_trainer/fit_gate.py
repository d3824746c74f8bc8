"""The gate's own networks, learned from a checkpoint's stored experience: no policy was ever trained on them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mier.agent import Agent, gate_networks
from mier.checkpoint import Checkpoint
from mier.types import Transitions
from mier_trainer.fit_dynamics import dynamics_weights
from mier_trainer.regression import regress

_ROWS = 512
_NORMALIZER_ROWS = 20_000


def fit_gate(checkpoint: Checkpoint, steps: int, seed: int) -> Agent:
    """The checkpoint's agent with a gate: as its model (and its dynamics), but of other initial weights and batches.

    Contexts are those of the training tasks, so that an adapted context means the same to both.
    """
    torch.manual_seed(seed)
    agent, buffer = checkpoint.agent, checkpoint.relabel_buffer
    configuration = replace(agent.configuration, gate=True)
    model, dynamics = gate_networks(agent.spec, configuration)
    assert model is not None
    model.load_state_dict(_kept(agent), strict=False)
    of_row = agent.training_contexts[buffer.task][buffer.episode]

    def draw(generator: torch.Generator, contexts: Tensor) -> tuple[Transitions, Tensor]:
        chosen = torch.randint(buffer.size, (_ROWS,), generator=generator)
        return buffer.transitions.rows(chosen), contexts[chosen]

    some = torch.randperm(buffer.size, generator=torch.Generator().manual_seed(seed))[:_NORMALIZER_ROWS]
    rows = buffer.transitions.rows(some)
    regress(model, rows, lambda g: draw(g, of_row), steps, seed, model.target_weights)
    if dynamics is not None:
        none = torch.zeros(buffer.size, 0)
        regress(dynamics, rows, lambda g: draw(g, none), steps, seed + 1, dynamics_weights(dynamics))
    return replace(agent, configuration=configuration, gate_model=model, gate_dynamics=dynamics)


def _kept(agent: Agent) -> dict[str, Tensor]:
    """Of the model, what belongs to contexts and their adaptation."""
    return {
        name: value for name, value in agent.model.state_dict().items() if name in ("prior_context", "inner_log_rate")
    }
