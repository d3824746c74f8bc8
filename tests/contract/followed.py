"""Tasks for sessions that follow them, and checkpoints that can tell one from another."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mier.checkpoint import Checkpoint, decode
from mier.config import AdaptConfig, AdaptMethod, Conditioning, ModelConfig
from mier.ood import OodReference
from mier.types import Transitions, Varies
from mier_client.transport import TransitionBatch, Transport
from mier_client.values import Session
from tests.contract import tiny
from tests.contract.helpers import CALL_S, LEARN_S

USUAL, STRANGE = "tiny-usual", "tiny-strange"
"""To the first every task looks usual, to the second none does."""
FIRST, SECOND = torch.tensor([0.7, -0.4, 0.2]), torch.tensor([-0.9, 0.8, 0.5])


def write_checkpoints(folder: Path, *names: str) -> None:
    """Of these names: `USUAL`, `STRANGE`."""
    for name in names:
        tiny.write(
            folder,
            name,
            Varies.REWARD,
            model=ModelConfig(
                context_dim=tiny.CONTEXT_DIM, hidden=(16, 16), conditioning=Conditioning.LINEAR_HEAD,
                log_var_min=-4.0, log_var_max=-3.9,
            ),
            adapt=AdaptConfig(method=AdaptMethod.CLOSED_FORM, min_transitions=20),
            head_scale=6.0,
            ood=OodReference((1e6 if name == USUAL else 0.0,) * 99, (1e6,) * 99),
        )  # fmt: skip


def task(folder: Path, context: torch.Tensor, episode: int, count: int = tiny.HORIZON_STEPS) -> TransitionBatch:
    """An episode whose rewards are the model's own under a context, with the noise that it expects."""
    checkpoint = _load(folder / STRANGE)
    generator = torch.Generator().manual_seed(episode)
    rows: Transitions = tiny.transitions(count, 100 + episode)
    with torch.no_grad():
        found = checkpoint.agent.model(rows, context)
        drawn = found.mean + torch.exp(0.5 * found.log_var) * torch.randn(found.mean.shape, generator=generator)
        reward = checkpoint.agent.model.target_norm.inverse(drawn)[..., 0]
    truncated = np.zeros(count, np.bool_)
    truncated[-1] = True
    fields: dict[str, Any] = tiny.arrays(count, 100 + episode) | {"reward": reward.numpy()}
    return TransitionBatch(
        episode=episode,
        first_step=0,
        terminated=np.zeros(count, np.bool_),
        truncated=truncated,
        policy_version=(1,),
        **fields,
    )


def _load(path: Path) -> Checkpoint:
    return decode({file.name: file.read_bytes() for file in path.iterdir()})


def until(transport: Transport, session: Session, reached: Callable[[Session], bool]) -> Session:
    """The session once it is so; nothing tells when, so it is asked again and again."""
    deadline = time.monotonic() + LEARN_S
    while not reached(now := transport.get_session(session.id, CALL_S)):
        assert time.monotonic() < deadline, now
        time.sleep(0.02)
    return now
