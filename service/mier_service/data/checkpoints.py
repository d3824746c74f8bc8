"""The checkpoints that the service holds: folders at one place, decoded and verified on first use.

A session is bound to a checkpoint by hash: if the folder of that name has changed since, the session is refused
rather than served by other weights.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mier import onnx_policy
from mier.checkpoint import CHECKPOINT_FILES, Checkpoint, CheckpointError, decode
from mier.weights import PolicyWeights
from mier_service.data.places import Place
from mier_service.environments import environment_value
from mier_service.errors import Reason, ServiceError
from mier_service.values import EnvironmentValue

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class HeldCheckpoint:
    """A decoded checkpoint."""

    name: str
    checkpoint: Checkpoint
    environment: EnvironmentValue
    prior_context: npt.NDArray[np.float32]
    """[context_dim]"""
    weights_hash: str
    """SHA-256 of its own policy weights."""


class Checkpoints:
    """Reads checkpoints by name, keeping them; safe to use from several threads."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._held: dict[str, HeldCheckpoint] = {}
        self._exported: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """All that are there, in order."""
        return sorted(name for name in self._place.folders_with(CHECKPOINT_FILES[0]) if _NAME.fullmatch(name))

    def get(self, name: str, expected_hash: str | None = None) -> HeldCheckpoint:
        """The checkpoint of that name; refused unless it is the one with `expected_hash`, if that is given."""
        with self._lock:
            held = self._held.get(name)
            if held is None:
                held = self._held[name] = self._read(name)
        if expected_hash not in (None, held.checkpoint.hash):
            raise ServiceError(
                Reason.CHECKPOINT_CHANGED,
                f"the session was made on checkpoint {name!r} with hash {expected_hash}, but the service holds "
                f"{held.checkpoint.hash} under that name now: put the old one back, or move the session to this one",
            )
        return held

    def export(self, held: HeldCheckpoint) -> bytes:
        """Its own policy for ONNX Runtime; made once, in seconds."""
        with self._lock:
            onnx = self._exported.get(held.checkpoint.hash)
            if onnx is None:
                agent = held.checkpoint.agent
                onnx = self._exported[held.checkpoint.hash] = onnx_policy.export(PolicyWeights.of(agent), agent)
            return onnx

    def _read(self, name: str) -> HeldCheckpoint:
        names = self.names()
        if name not in names:
            known = ", ".join(map(repr, names)) if names else "none at all"
            raise ServiceError(
                Reason.CHECKPOINT_NOT_FOUND,
                f"there is no checkpoint {name[:80]!r}; the service holds {known}",
            )
        try:
            files = {file: self._place.read(f"{name}/{file}") for file in CHECKPOINT_FILES}
            checkpoint = decode(files)
        except (OSError, CheckpointError) as error:
            cause = str(error) if isinstance(error, CheckpointError) else f"{error.strerror or type(error).__name__}"
            raise ServiceError(
                Reason.CHECKPOINT_UNUSABLE,
                f"checkpoint {name!r} cannot be read: {cause}. Restore its files; other checkpoints are not affected",
            ) from error
        weights = PolicyWeights.of(checkpoint.agent)
        return HeldCheckpoint(
            name=name,
            checkpoint=checkpoint,
            environment=environment_value(checkpoint.spec),
            prior_context=np.asarray(weights.context, np.float32),
            weights_hash=hashlib.sha256(weights.to_bytes()).hexdigest(),
        )
