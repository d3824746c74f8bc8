"""The fine-tuning process: claims an operation, learns, saves, publishes an immutable version; again and again.

Runs apart from the serving process, at lower priority, on one thread; all that they share is the data folder.
Killed at any moment, the operation goes on from its last save. Standard input is the life line: a line on it says
that an operation waits, its end that the service is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import structlog
import torch

from mier.finetune import FineTune
from mier.serialization import CorruptedData
from mier.types import Transitions
from mier.weights import PolicyWeights
from mier_service.acting.onnx_weights import export_like
from mier_service.config import STORE_URL_VARIABLE, WorkerConfig
from mier_service.data.checkpoints import Checkpoints, HeldCheckpoint
from mier_service.data.files import DamagedFile
from mier_service.data.places import place_at
from mier_service.data.storage import Storage
from mier_service.ending import end_now
from mier_service.errors import Reason, ServiceError
from mier_service.learning.gating import judge
from mier_service.learning.lease import Interrupted, Job, Overtaken
from mier_service.learning.worker_news import Progress, tell
from mier_service.store import operation_rows, session_rows, transition_rows
from mier_service.store.operation_rows import LeaseLost
from mier_service.store.store import TOKENED
from mier_service.transition_matrix import RowLayout
from mier_service.values import (
    GateValue,
    OperationErrorValue,
    OperationState,
    Promotion,
    VersionOrigin,
    VersionValue,
    WindowValue,
)
from mier_service.watching import tracing
from mier_service.watching.calls import Call, begin, note
from mier_service.watching.logs import configure_logs, quiet_exporter

MAX_ATTEMPTS_WITHOUT_PROGRESS = 3
_JUDGEMENTS = 3
_NICENESS = 10
_REPORT_EVERY_S = 0.25
_LOOK_EVERY_S = 1.0
_LAST_SAVE_WITHIN_S = 20.0
_STORAGE_PAUSE_S = 3.0
_log = structlog.get_logger(__name__)


class Worker:
    """Works off the queue until told to stop."""

    def __init__(self, config: WorkerConfig, storage: Storage, checkpoints: Checkpoints) -> None:
        self._config = config
        self._storage = storage
        self._checkpoints = checkpoints
        self._stopping = threading.Event()
        self._awake = threading.Event()

    def wake(self) -> None:
        """An operation may be waiting."""
        self._awake.set()

    def stop(self) -> None:
        """Ends after a last save."""
        self._stopping.set()
        self._awake.set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping.is_set():
            try:
                busy = self.work_once()
            except ServiceError as error:
                _log.warning("work_interrupted", detail=error.detail)
                busy = False
            if not busy:
                self._awake.wait(_LOOK_EVERY_S)
                self._awake.clear()

    def work_once(self) -> bool:
        """Takes one operation as far as it goes; False if none waits."""
        begin(None)
        now_s = self._storage.clock()
        with self._storage.store.write(of=TOKENED) as c:
            row = operation_rows.claim(c, now_s, self._config.lease_s)
        if row is None:
            return False
        log = _log.bind(attempt=row.attempts)
        # What is logged names the request that asked for it, and the spans join that request's trace.
        begin(Call("worker", row.request_id or "", "fine_tune", session=row.session_id, operation=row.id))
        about = {"mier.operation": row.id, "mier.session": row.session_id, "mier.attempt": row.attempts}
        with (
            tracing.going_on(row.trace_context, "worker.fine_tune", about),
            Job(self._storage, row, self._config, self._stopping) as job,
        ):
            try:
                if row.attempts_without_progress > MAX_ATTEMPTS_WITHOUT_PROGRESS:
                    job.end(OperationState.FAILED, _given_up(row.attempts_without_progress - 1))
                    return True
                log.info("fine_tune_taken_up")
                version = self._learn(job)
                note(policy_version=version)
                log.info("fine_tune_published", version=version)
            except LeaseLost:
                log.warning("lease_lost")
            except Interrupted as stop:
                self._end(job, stop.state)
                log.info("fine_tune_stopped", state=stop.state.value)
            except ServiceError as error:
                if error.reason in (Reason.OPERATION_NOT_FOUND, Reason.SESSION_NOT_FOUND):
                    log.info("session_deleted")
                elif error.reason is Reason.STORAGE_UNAVAILABLE:
                    self._hand_back(job, error)
                else:
                    self._end(
                        job, OperationState.FAILED, OperationErrorValue(reason=error.reason.value, detail=error.detail)
                    )
            except OSError as error:
                self._hand_back(job, error)
            except Exception as error:
                log.exception("fine_tune_failed")
                self._end(job, OperationState.FAILED, _failure(error))
        return True

    def _learn(self, job: Job) -> int:
        row = job.row
        with self._storage.store.read() as c:
            session = session_rows.get_session(c, row.session_id)
            start, onnx_hash = session_rows.get_version(c, session.id, row.start_version)
            layout = RowLayout(session.environment.observation_dim, session.environment.action_dim)
            rows = transition_rows.read(c, session.id, layout, WindowValue(), row.last_batch_row)
        rows = rows[row.first_transition :]  # the rest is of earlier tasks
        # Not the session's, which may have been taken to another checkpoint since the fine-tune was asked for.
        held = self._checkpoints.get(start.checkpoint, start.checkpoint_hash)
        config = replace(held.checkpoint.agent.configuration.finetune, updates=row.updates_total)
        transitions = layout.transitions(rows)
        learner = self._resume(job, held, transitions)
        if learner is None:
            learner = FineTune.start(held.checkpoint, self._tuned_weights(start), transitions, config, row.seed)
        with tracing.span("worker.learn", {"mier.updates": row.updates_total}), tracing.quiet():
            self._advance(job, learner)
        weights = learner.result()
        onnx = export_like(self._storage.onnx.get(onnx_hash), weights, held.checkpoint.agent)
        settings = json.dumps(config.to_json(), sort_keys=True)
        for _ in range(_JUDGEMENTS):
            with tracing.span("worker.judge"):
                promotion, gate = self._judge(row.session_id, start, held, weights, transitions)
            with contextlib.suppress(Overtaken), tracing.span("worker.publish"):
                return job.publish(weights, onnx, settings, promotion, gate)
        # Adapted more often than it can be judged: the context moved again, the weights it was judged against did not.
        return job.publish(weights, onnx, settings, promotion, gate, overtaken=True)

    def _judge(
        self,
        session_id: str,
        start: VersionValue,
        held: HeldCheckpoint,
        candidate: PolicyWeights,
        transitions: Transitions,
    ) -> tuple[Promotion, GateValue | None]:
        """Against what acts now; against what it started from, where the session was taken to another checkpoint."""
        if not self._config.gate:
            return Promotion.UNGATED, None
        with self._storage.store.read() as c:
            session = session_rows.get_session(c, session_id)
            acting, _ = session_rows.get_version(c, session_id, session.active_version)
        incumbent = acting if acting.checkpoint_hash == start.checkpoint_hash else start
        context = np.asarray(incumbent.policy_context, np.float32)
        weights = self._tuned_weights(incumbent) or PolicyWeights.of(held.checkpoint.agent, context)
        return judge(held.checkpoint, incumbent.number, weights, candidate, transitions)

    def _tuned_weights(self, version: VersionValue) -> PolicyWeights | None:
        """None where the version acts on the checkpoint's own."""
        if version.origin is not VersionOrigin.FINE_TUNE:
            return None
        return PolicyWeights.from_bytes(self._storage.weights.get(version.weights_hash))

    def _resume(self, job: Job, held: HeldCheckpoint, transitions: Transitions) -> FineTune | None:
        """From the last save; None if there is none that can be read, and it begins anew."""
        if job.row.save_hash is None:
            return None
        try:
            return FineTune.resume(held.checkpoint, transitions, self._storage.saves.get(job.row.save_hash))
        except (DamagedFile, CorruptedData) as error:
            _log.warning("save_unreadable", operation=job.id, error=str(error))
            return None

    def _advance(self, job: Job, learner: FineTune) -> None:
        """Runs it to its end, reporting, saving, and stopping where it is told to."""
        updates, saved_s = 1, time.monotonic()
        while not learner.done:
            started_s, before = time.monotonic(), learner.updates_done
            metrics = learner.run(updates)
            now_s = time.monotonic()
            tell(Progress(learner.updates_done - before))
            updates = max(1, min(1000, round(updates * _REPORT_EVERY_S / max(now_s - started_s, 1e-3))))
            job.report(metrics)
            try:
                job.check()
            except Interrupted as stop:
                if not stop.state.final:
                    job.save(learner.save())
                raise
            if now_s - saved_s >= self._config.save_every_s and not learner.done:
                job.save(learner.save())
                saved_s = time.monotonic()

    def _hand_back(self, job: Job, error: Exception) -> None:
        """Tries again in a while, from the last save, for as long as the storage fails."""
        _log.warning("storage_failed", operation=job.id, error=str(error), again_after_s=_STORAGE_PAUSE_S)
        try:
            job.hand_back()
        except (LeaseLost, ServiceError) as failed:
            _log.warning("not_handed_back", operation=job.id, error=str(failed))  # its lease runs out
        self._stopping.wait(_STORAGE_PAUSE_S)

    def _end(self, job: Job, state: OperationState, error: OperationErrorValue | None = None) -> None:
        """Also of one that is gone by now, or another worker's."""
        try:
            job.end(state, error)
        except LeaseLost:
            _log.warning("lease_lost", operation=job.id)


def _given_up(attempts: int) -> OperationErrorValue:
    return OperationErrorValue(
        reason=Reason.FINE_TUNE_FAILED.value,
        detail=f"the worker ended {attempts} times without reaching a save, so the fine-tune was given up; "
        "the log of the service says why",
    )


def _failure(error: Exception) -> OperationErrorValue:
    # A ValueError of the numeric core is written for users; anything else is for the log only.
    cause = str(error) if isinstance(error, ValueError) else type(error).__name__
    return OperationErrorValue(
        reason=Reason.FINE_TUNE_FAILED.value,
        detail=f"the fine-tune stopped: {cause}. The session acts as before; the log of the service says more",
    )


def main() -> None:
    """`python -m mier_service.learning.worker CONFIG_JSON`, started by the service alone."""
    config = WorkerConfig.model_validate_json(sys.argv[1])
    configure_logs(config.log_level)
    tracing.start(config.trace_endpoint, config.trace_ratio, "mier-worker")
    os.nice(_NICENESS)
    torch.set_num_threads(1)
    quiet_exporter()
    storage = Storage(
        config.data,
        connections=2,
        clock=time.time,
        store_url=os.environ.get(STORE_URL_VARIABLE),
        files_url=config.files_url,
    )
    worker = Worker(config, storage, Checkpoints(place_at(config.checkpoints)))
    # Ctrl-C reaches the whole group; when to stop is the service's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    threading.Thread(target=_listen, args=(worker,), name="mier-lifeline", daemon=True).start()
    worker.run()
    storage.close()
    tracing.stop()
    end_now(0)


def _listen(worker: Worker) -> None:
    for _ in sys.stdin:
        worker.wake()
    worker.stop()
    # The service is gone: whatever the learning is at, do not outlive it for long.
    threading.Event().wait(_LAST_SAVE_WITHIN_S)
    os._exit(1)


if __name__ == "__main__":
    main()
