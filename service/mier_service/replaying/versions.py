"""Policy versions, made again: the checkpoint's weights under a context, or a fine-tune run anew from its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mier.config import FineTuneConfig
from mier.finetune import FineTune
from mier.serialization import CorruptedData
from mier.types import Transitions
from mier.weights import PolicyWeights
from mier_service.acting.onnx_weights import export_like
from mier_service.data.checkpoints import Checkpoints, HeldCheckpoint
from mier_service.data.files import ContentFiles, DamagedFile
from mier_service.learning.gating import judge
from mier_service.provenance import build
from mier_service.replaying.contexts import CannotReplay, Contexts, checkpoint
from mier_service.replaying.finding import Finding, Outcome
from mier_service.replaying.log import Log, VersionRecord
from mier_service.replaying.tolerance import Distance, between_contexts, between_policies, same_bits
from mier_service.values import Promotion, VersionOrigin

Progress = Callable[[int, int, int], None]
"""Told of a fine-tune that is run anew: its version, updates done, updates to make."""
_UPDATES_AT_ONCE = 100


@dataclass(frozen=True)
class Files:
    """What the store's rows name."""

    weights: ContentFiles
    onnx: ContentFiles


class Versions:
    """Makes a session's versions again, in the order of their numbers."""

    def __init__(self, log: Log, checkpoints: Checkpoints, files: Files, contexts: Contexts, tell: Progress) -> None:
        self._log = log
        self._checkpoints = checkpoints
        self._files = files
        self._contexts = contexts
        self._tell = tell
        self._tuned: dict[int, PolicyWeights] = {}
        """What fine-tuned versions are: as stored, or as made again where that is damaged."""

    def replay(self, record: VersionRecord) -> Finding:
        """Makes it again, and compares; and whether its files are what it was made to be."""
        which = str(record.value.number)
        try:
            held = checkpoint(self._checkpoints, record.value.checkpoint, record.value.checkpoint_hash)
            if record.value.origin is VersionOrigin.FINE_TUNE:
                wrong, distances = self._replay_fine_tune(record, held)
            else:
                wrong, distances = self._replay_shared(record, held)
        except CannotReplay as error:
            return Finding("version", which, Outcome.NOT_REPLAYED, str(error))
        detail = "; ".join([*wrong, *map(str, distances)])
        if not wrong and not distances:
            return Finding("version", which, Outcome.EQUAL)
        elsewhere = set(record.builds) != {build()}
        if not wrong and elsewhere and all(distance.within for distance in distances):
            return Finding("version", which, Outcome.WITHIN_TOLERANCE, detail)
        return Finding("version", which, Outcome.DIFFERENT, detail)

    def _replay_shared(self, record: VersionRecord, held: HeldCheckpoint) -> tuple[list[str], list[Distance]]:
        """What is wrong with it, and how far it is from what is stored where that is not nothing."""
        value, agent = record.value, held.checkpoint.agent
        own = self._contexts.made(value.model_context_number).policy_context
        if value.origin is VersionOrigin.CHECKPOINT:
            own = held.prior_context
        wrong = []
        if value.weights_hash != held.weights_hash:
            wrong.append(f"expected the checkpoint's weights {held.weights_hash[:12]}, got {value.weights_hash[:12]}")
        wrong += self._wrong_onnx(record, PolicyWeights.of(agent, own), held)
        stored = np.array(value.policy_context, np.float32)
        return wrong, [] if same_bits(own, stored) else [between_contexts(agent, own, stored)]

    def _replay_fine_tune(self, record: VersionRecord, held: HeldCheckpoint) -> tuple[list[str], list[Distance]]:
        value = record.value
        stored, wrong = self._stored_weights(record, held)
        if stored is not None:
            self._tuned[value.number] = stored
        transitions, made = self._learn(record, held)
        if stored is None:
            self._tuned[value.number] = stored = made
        equal = hashlib.sha256(made.to_bytes()).hexdigest() == value.weights_hash
        distances = []
        if not equal:
            states = transitions.observation.numpy()
            distances.append(between_policies(held.checkpoint.agent, made, stored, states))
        if not same_bits(stored.context, np.array(value.policy_context, np.float32)):
            wrong.append("the policy context of its row is not that of its weights")
        wrong += self._wrong_onnx(record, stored, held)
        wrong += self._wrong_verdict(record, held, stored, transitions)
        return wrong, distances

    def _learn(self, record: VersionRecord, held: HeldCheckpoint) -> tuple[Transitions, PolicyWeights]:
        """The transitions that it learned from, and what comes of them."""
        value, log = record.value, self._log
        row = log.operations.get(value.operation_id or "")
        start = log.versions.get(row.start_version) if row is not None else None
        if row is None or start is None or value.configuration_json is None:
            raise CannotReplay("the record of its fine-tune is not in the store")
        stored = log.stored_by(row.last_batch_row)
        rows = log.rows[row.first_transition : stored]
        if len(rows) != value.transitions_used:
            raise CannotReplay(f"it learned from {value.transitions_used} transitions, of which {len(rows)} are stored")
        try:
            config = FineTuneConfig.from_json(json.loads(value.configuration_json))
            weights = self._weights(start)
            transitions = log.layout.transitions(rows)
            learner = FineTune.start(held.checkpoint, weights, transitions, config, row.seed)
            while not learner.done:
                learner.run(_UPDATES_AT_ONCE)
                self._tell(value.number, learner.updates_done, config.updates)
        except (ValueError, TypeError) as error:
            raise CannotReplay(f"its fine-tune comes to nothing now: {error}") from error
        return transitions, learner.result()

    def _weights(self, record: VersionRecord) -> PolicyWeights | None:
        """None where it acts on the checkpoint's own."""
        if record.value.origin is not VersionOrigin.FINE_TUNE:
            return None
        if record.value.number not in self._tuned:
            raise CannotReplay(f"version {record.value.number} could not be replayed, and its weights are damaged")
        return self._tuned[record.value.number]

    def _stored_weights(self, record: VersionRecord, held: HeldCheckpoint) -> tuple[PolicyWeights | None, list[str]]:
        try:
            weights = PolicyWeights.from_bytes(self._files.weights.get(record.value.weights_hash))
            weights.require_fit(held.checkpoint.agent)
        except (DamagedFile, CorruptedData, OSError) as error:
            return None, [f"its weights: {error}"]
        return weights, []

    def _wrong_onnx(self, record: VersionRecord, weights: PolicyWeights, held: HeldCheckpoint) -> list[str]:
        """The file that acts is whole and has these weights."""
        try:
            onnx = self._files.onnx.get(record.onnx_hash)
        except (DamagedFile, OSError) as error:
            return [f"what acts: {error}"]
        same = export_like(onnx, weights, held.checkpoint.agent) == onnx
        return [] if same else [f"what acts (onnx file {record.onnx_hash[:12]}...) has other weights than the version"]

    def _wrong_verdict(
        self, record: VersionRecord, held: HeldCheckpoint, weights: PolicyWeights, transitions: Transitions
    ) -> list[str]:
        """The gate says the same; not asked where it was not."""
        value = record.value
        if value.gate is None:
            same = value.promotion is Promotion.UNGATED
            return [] if same else [f"it is {value.promotion.value}, and nothing says what the gate saw"]
        incumbent = self._log.versions[value.gate.incumbent_version]
        context = np.array(incumbent.value.policy_context, np.float32)
        acting = self._weights(incumbent) or PolicyWeights.of(held.checkpoint.agent, context)
        promotion, gate = judge(held.checkpoint, incumbent.value.number, acting, weights, transitions)
        if promotion is not value.promotion:
            return [f"the gate says {promotion.value} now, it said {value.promotion.value}"]
        if gate != value.gate and set(record.builds) == {build()}:
            return ["the gate sees other returns now"]
        return []
