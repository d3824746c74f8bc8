"""A claimed operation: its lease, kept alive from a thread, and everything that a worker writes under it.

Invariants
- Every write holds only under the lease token that the operation was claimed with; `LeaseLost` says that another
  worker has it, or that it is gone.
- A version's files are durable before the row that names them is; version, promotion, session and operation change
  in one transaction.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Self

import structlog
from sqlalchemy import Connection, Row

from mier.finetune import FineTuneMetrics
from mier.weights import PolicyWeights
from mier_service.access.key_bounds import ROW_BYTES
from mier_service.config import WorkerConfig
from mier_service.data.storage import Storage
from mier_service.errors import ServiceError
from mier_service.learning.publishing import publication
from mier_service.learning.worker_news import Ended, tell
from mier_service.store import operation_rows, promotion_rows, session_rows, shadow_rows, usage_rows
from mier_service.store.operation_rows import LeaseLost
from mier_service.store.promotion_rows import SERVICE, Why
from mier_service.store.session_rows import to_time
from mier_service.store.store import TOKENED
from mier_service.values import (
    GateValue,
    OperationErrorValue,
    OperationState,
    Promotion,
    PromotionKind,
    SessionState,
    VersionOrigin,
    VersionValue,
)

_log = structlog.get_logger(__name__)


class Interrupted(Exception):
    """The operation stops here: `state` says what becomes of it."""

    def __init__(self, state: OperationState) -> None:
        super().__init__(state)
        self.state = state


class Overtaken(Exception):
    """Another version acts by now than the one that a candidate was judged against."""


class Job:
    """One claimed operation: its lease, kept alive from a thread of its own, and what is written under it."""

    def __init__(self, storage: Storage, row: Row[Any], config: WorkerConfig, stopping: threading.Event) -> None:
        self.id: str = row.id
        self.row = row
        self._token: int = row.lease_token
        self._save_hash: str | None = row.save_hash
        self._saved = False
        self._storage = storage
        self._lease_s = config.lease_s
        self._turn_s = config.turn_s
        self._learns_since_s: float | None = None
        self._stopping = stopping
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="mier-lease", daemon=True)

    def __enter__(self) -> Self:
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._renewer.join()

    def check(self) -> None:
        """Raises `LeaseLost`, or `Interrupted` where it is to stop: cancelled, paused, its turn is over while
        others wait, or the service ends."""
        if self._lost.is_set():
            raise LeaseLost(self.id)
        with self._storage.store.read() as c:
            row = operation_rows.get_row(c, self.id)
            state = session_rows.require_session(c, row.session_id)
            over = self._turn_is_over()
            others_turn = over and operation_rows.another_waits(c, self.id, self._storage.clock())
        if row.cancel_requested:
            raise Interrupted(OperationState.CANCELLED)
        if state is SessionState.PAUSED or self._stopping.is_set() or others_turn:
            raise Interrupted(OperationState.QUEUED)

    def _turn_is_over(self) -> bool:
        """From the first look on: the time to load what it needs is not learned in, and may be longer than a turn."""
        now_s = time.monotonic()
        if self._learns_since_s is None:
            self._learns_since_s = now_s
        return now_s - self._learns_since_s >= self._turn_s

    def report(self, metrics: FineTuneMetrics) -> None:
        """Progress, for watchers."""
        values = {
            name: float(value)
            for name, value in asdict(metrics).items()
            if isinstance(value, int | float) and not name.startswith("updates_") and math.isfinite(value)
        }
        self._change(
            updates_done=metrics.updates_done,
            updates_total=metrics.updates_total,
            metrics_json=json.dumps(values),
        )

    def save(self, data: bytes) -> None:
        """A resume point; the one before is dropped once this one is named by the row."""
        new, old = self._storage.saves.put(data), self._save_hash
        try:
            with self._storage.store.write() as c:
                # Again, under the write lock: an equal session may have dropped the same content in between.
                self._storage.saves.put(data)
                self._write(c, save_hash=new, attempts_without_progress=0)
        except (LeaseLost, ServiceError):
            self._storage.drop_unused(set(), {new})
            raise
        self._save_hash, self._saved = new, True
        if old is not None and old != new:
            self._storage.drop_unused(set(), {old})

    def end(self, state: OperationState, error: OperationErrorValue | None = None) -> None:
        """Gives the operation back (QUEUED), or ends it without a version."""
        columns: dict[str, Any] = {"state": state.value, "lease_until_s": 0.0}
        if error is not None:
            columns["error_json"] = error.model_dump_json()
        self._change(**columns)
        self._drop_save_if(state.final)
        if state.final:
            self._tell_end(state, None)

    def hand_back(self) -> None:
        """The storage failed, for which the operation is not to blame: it waits, and this attempt does not count."""
        spent = 0 if self._saved else self.row.attempts_without_progress - 1
        self._change(state=OperationState.QUEUED.value, lease_until_s=0.0, attempts_without_progress=spent)

    def publish(
        self,
        weights: PolicyWeights,
        onnx: bytes,
        configuration_json: str,
        promotion: Promotion,
        gate: GateValue | None,
        *,
        overtaken: bool = False,
    ) -> int:
        """One transaction: the version, its promotion, and the operation's success. Its number.

        It does not act where the gate did not let it, where another version is pinned, or where the session has been
        taken to another checkpoint; nor yet where the session wants candidates to act in shadow first.

        Args:
            overtaken: publish it although another version acts by now than the one that it was judged against.

        Raises:
            Overtaken: that is so, and was not asked for.
        """
        data = weights.to_bytes()
        with self._gone_if_undone() as put, self._storage.store.write() as c:
            # Under the write lock, so that no delete of an equal version removes the files in between.
            weights_hash, onnx_hash = self._storage.weights.put(data), self._storage.onnx.put(onnx)
            put.add((weights_hash, onnx_hash))
            row = operation_rows.get_row(c, self.id)
            session = session_rows.get_session(c, row.session_id)
            if row.cancel_requested:
                raise Interrupted(OperationState.CANCELLED)
            if session.state is SessionState.PAUSED:
                raise Interrupted(OperationState.QUEUED)
            start, _ = session_rows.get_version(c, session.id, row.start_version)
            same_checkpoint = session.checkpoint_hash == start.checkpoint_hash
            if not overtaken and gate and same_checkpoint and gate.incumbent_version != session.active_version:
                raise Overtaken
            number = session_rows.newest_version_number(c, session.id) + 1
            now_s = self._storage.clock()
            version = VersionValue(
                number=number,
                parent=row.start_version,
                weights_hash=weights_hash,
                policy_context=[float(x) for x in weights.context],
                model_context_number=row.model_context_number,
                origin=VersionOrigin.FINE_TUNE,
                promotion=promotion,
                operation_id=self.id,
                checkpoint_hash=start.checkpoint_hash,
                transitions_used=row.transitions_used,
                seed=row.seed,
                configuration_json=configuration_json,
                create_time=to_time(now_s),
                checkpoint=start.checkpoint,
                gate=gate,
            )
            session_rows.add_version(c, session.id, version, onnx_hash)
            session_rows.touch(c, {session.id}, now_s)  # whoever asked for it should find it
            may_act = promotion in (Promotion.UNGATED, Promotion.PROMOTED)
            acts = may_act and same_checkpoint and not session.pinned
            # Never refused for what is stored: the fine-tune was accepted. Its key's next write is.
            # A row beside the version: what acts from here on, or what acts in shadow until it may.
            usage_rows.add(c, row.owner, session.id, (2 if acts else 1) * ROW_BYTES + len(data) + len(onnx))
            if acts and session.shadow is not None:
                shadow_rows.begin(c, session.id, number, session.shadow, session.active_version, now_s)
            elif acts:
                why = Why(PromotionKind.PUBLISH, SERVICE, publication(version), now_s)
                promotion_rows.swap(c, session, version, why)
            operation_rows.change(
                c,
                self.id,
                self._token,
                now_s,
                state=OperationState.SUCCEEDED.value,
                result_version=number,
                updates_done=row.updates_total,
            )
        self._drop_save_if(True)
        self._tell_end(OperationState.SUCCEEDED, promotion)
        return number

    def _tell_end(self, state: OperationState, promotion: Promotion | None) -> None:
        tell(Ended(state, max(0.0, self._storage.clock() - self.row.create_time_s), promotion))

    @contextmanager
    def _gone_if_undone(self) -> Iterator[set[tuple[str, str]]]:
        """Files (weights, ONNX) that are noted in the set go again where the block fails: no row names them."""
        put: set[tuple[str, str]] = set()
        try:
            yield put
        except Exception:
            self._storage.drop_unused(put, set())
            raise

    def _drop_save_if(self, final: bool) -> None:
        if final and self._save_hash is not None:
            self._storage.drop_unused(set(), {self._save_hash})

    def _change(self, **columns: Any) -> None:
        with self._storage.store.write(of=TOKENED) as c:
            self._write(c, **columns)

    def _write(self, c: Connection, **columns: Any) -> None:
        operation_rows.change(c, self.id, self._token, self._storage.clock(), **columns)

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            try:
                with self._storage.store.write(of=TOKENED) as c:
                    until_s = self._storage.clock() + self._lease_s
                    operation_rows.renew(c, self.id, self._token, until_s)
            except LeaseLost:
                self._lost.set()
                return
            except ServiceError as error:
                _log.warning("lease_not_renewed", operation=self.id, detail=error.detail)
