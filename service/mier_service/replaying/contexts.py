"""Model contexts, inferred again from the transitions that they were inferred from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mier.adaptation import Adaptation, NotFinite
from mier.warm_start import policy_context_after
from mier_service.data.checkpoints import Checkpoints, HeldCheckpoint
from mier_service.errors import ServiceError
from mier_service.learning.following import MAX_FOLLOWED_STEPS, take_step
from mier_service.learning.learning import context_value, infer
from mier_service.provenance import ContextOrigin, build
from mier_service.replaying.finding import Finding, Outcome
from mier_service.replaying.log import ContextRecord, Log
from mier_service.replaying.tolerance import between_contexts, between_scores, same_bits
from mier_service.transition_matrix import FloatArray
from mier_service.values import ModelContextValue


class CannotReplay(Exception):
    """Something that it takes is missing; the message says what."""


@dataclass(frozen=True)
class MadeContext:
    """A model context, made again."""

    value: ModelContextValue
    policy_context: FloatArray
    """[context_dim], what the checkpoint's own policy acts under with it."""
    following_json: str | None
    held: HeldCheckpoint


class Contexts:
    """Makes a session's model contexts again, in the order of their numbers."""

    def __init__(self, log: Log, checkpoints: Checkpoints) -> None:
        self._log = log
        self._checkpoints = checkpoints
        self._made: dict[int, MadeContext] = {}
        self._following: dict[int, str | None] = {}

    def made(self, number: int) -> MadeContext:
        """One that was replayed."""
        if number not in self._made:
            raise CannotReplay(f"model context {number} could not be replayed")
        return self._made[number]

    def replay(self, record: ContextRecord) -> Finding:
        """Makes it again, and compares."""
        number = record.value.number
        self._following[number] = record.following_json
        try:
            made = self._made[number] = self._make(record)
        except CannotReplay as error:
            return Finding("context", str(number), Outcome.NOT_REPLAYED, str(error))
        finding = self._compare(made, record)
        if finding.outcome is Outcome.DIFFERENT:  # the next one need not suffer from a damaged record
            self._following[number] = made.following_json
        return finding

    def _make(self, record: ContextRecord) -> MadeContext:
        value, origin = record.value, record.origin
        if origin is None:
            raise CannotReplay("it was inferred before releases kept what a context is inferred from")
        held = checkpoint(self._checkpoints, origin.checkpoint, origin.checkpoint_hash)
        if origin.copy_of is not None:
            copied = self.made(origin.copy_of)
            there = {"number": value.number, "create_time": value.create_time}
            return MadeContext(copied.value.model_copy(update=there), copied.policy_context, None, held)
        if value.window is None:
            prior = value.model_copy(update={"values": [float(x) for x in held.prior_context]})
            return MadeContext(prior, held.prior_context, None, held)
        if origin.transitions_stored > len(self._log.rows):
            raise CannotReplay(
                f"it was inferred when {origin.transitions_stored} transitions were stored, {len(self._log.rows)} are"
            )
        try:
            found, own, state = self._infer(record, origin, held)
        except (NotFinite, ServiceError) as error:
            raise CannotReplay(f"nothing comes of its transitions now: {error}") from error
        created_s, reference = value.create_time.timestamp(), held.checkpoint.calibration.ood
        again = context_value(value.number, found, value.window, created_s, reference)
        return MadeContext(again, np.array(own, np.float32), state, held)

    def _infer(
        self, record: ContextRecord, origin: ContextOrigin, held: HeldCheckpoint
    ) -> tuple[Adaptation, list[float], str | None]:
        layout = self._log.layout
        if record.following_json is None:
            transitions = layout.transitions(self._log.used_by(record.value, origin))
            found = infer(held, transitions)
            return found, policy_context_after(held.checkpoint, found, transitions).tolist(), None
        rows = self._log.rows[origin.task_start : origin.transitions_stored]
        newest = rows[-MAX_FOLLOWED_STEPS:]
        before = self._following.get(record.value.number - 1)
        step = take_step(held, layout, before, newest, len(rows) - len(newest))
        if step is None:
            raise CannotReplay("the step that it came of comes to nothing now")
        return step.found.adaptation, step.policy_context, step.following_json

    def _compare(self, made: MadeContext, record: ContextRecord) -> Finding:
        stored, which = record.value, str(record.value.number)
        ours, theirs = (np.array(v.values, np.float32) for v in (made.value, stored))
        scores = [_scores(value) for value in (made.value, stored)]
        following = made.following_json == record.following_json
        if same_bits(ours, theirs) and scores[0] == scores[1] and following:
            return Finding("context", which, Outcome.EQUAL)
        distances = [between_contexts(made.held.checkpoint.agent, ours, theirs), between_scores(*scores)]
        detail = "; ".join(map(str, distances)) + ("" if following else "; what following goes on from is not the same")
        tolerable = record.origin is not None and record.origin.made_with != build()
        if tolerable and all(distance.within for distance in distances):
            return Finding("context", which, Outcome.WITHIN_TOLERANCE, detail)
        return Finding("context", which, Outcome.DIFFERENT, detail)


def checkpoint(checkpoints: Checkpoints, name: str, expected_hash: str) -> HeldCheckpoint:
    """By name and hash."""
    try:
        return checkpoints.get(name, expected_hash)
    except ServiceError as error:
        raise CannotReplay(error.detail) from error


def _scores(value: ModelContextValue) -> list[float | None]:
    used = float(value.transitions_used)
    return [value.heldout_nll_before, value.heldout_nll_after, value.ood_score, value.ood_percentile, used]
