"""Before the service is ready, every checkpoint is loaded and verified, and has done once what callers wait for: so the
first robot does not wait longer than the others."""

from __future__ import annotations

import contextlib

import numpy as np
import structlog
import torch

from mier.adaptation import InsufficientData
from mier.types import Transitions
from mier_service.acting.policies import Policy
from mier_service.data.checkpoints import Checkpoints, HeldCheckpoint
from mier_service.data.files import DamagedFile
from mier_service.data.storage import Storage
from mier_service.errors import Reason, ServiceError
from mier_service.store import session_rows
from mier_service.watching.metrics import Metrics
from mier_service.watching.monitor import Check

_log = structlog.get_logger(__name__)


def prepare_checkpoints(checkpoints: Checkpoints, storage: Storage, metrics: Metrics) -> tuple[Check, Check]:
    """What readiness makes of the checkpoints: one at least must be usable; those that are not are named."""
    unusable, cold, usable = list[str](), list[str](), 0
    for name in checkpoints.names():
        try:
            held = checkpoints.get(name)
            policy = _policy(held, checkpoints, storage)
        except ServiceError as error:
            if error.reason is not Reason.CHECKPOINT_UNUSABLE:
                raise
            _log.error("checkpoint_unusable", checkpoint=name, detail=error.detail)
            unusable.append(error.detail)
            continue
        usable += 1
        metrics.holds_checkpoint(name, held.checkpoint.hash)
        try:
            warm_up(held, policy)
        except Exception as error:  # whatever it is, its sessions will meet it, too: it must be seen now
            _log.exception("warm_up_failed", checkpoint=name)
            cold.append(f"{name}: {error}")
    return (
        Check("checkpoint", usable > 0, "; ".join(unusable)),
        Check("warm-up", not cold, "; ".join(cold)),
    )


def warm_up(held: HeldCheckpoint, policy: Policy) -> None:
    """Acts once with the checkpoint's own policy, and adapts once to transitions that mean nothing."""
    environment = held.environment
    policy.act(
        np.zeros((1, environment.observation_dim), np.float32),
        held.prior_context[None],
        np.zeros((1, environment.action_dim), np.float32),
    )
    agent = held.checkpoint.agent
    count = agent.configuration.adapt.min_transitions
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(count, environment.observation_dim, generator=generator)
    action = torch.zeros(count, environment.action_dim)
    with contextlib.suppress(InsufficientData):  # it has been through the code that has to be loaded
        agent.adapt(Transitions(observation, action, torch.zeros(count), observation, torch.zeros(count)))


def _policy(held: HeldCheckpoint, checkpoints: Checkpoints, storage: Storage) -> Policy:
    """As sessions on the checkpoint's own weights act with it."""
    with storage.store.read() as c:
        onnx_hash = session_rows.onnx_of(c, held.checkpoint.hash, held.weights_hash)
    if onnx_hash is not None:
        try:
            return Policy(storage.onnx.get(onnx_hash))
        except (DamagedFile, OSError) as error:
            # The sessions on it say so themselves, and act again once the file is restored.
            _log.error("policy_unusable", checkpoint=held.name, detail=str(error))
    return Policy(checkpoints.export(held))
