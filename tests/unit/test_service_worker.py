"""The worker, where what it works on goes away."""

from __future__ import annotations

from pathlib import Path

from mier_service.config import WorkerConfig
from mier_service.data import purging
from mier_service.data.checkpoints import Checkpoints
from mier_service.data.storage import Storage
from mier_service.learning.lease import Interrupted, Job
from mier_service.learning.worker import Worker
from mier_service.values import OperationState
from tests.unit.stored import add_operation, add_session
from tests.unit.test_service_retention import names


class Overtaken(Worker):
    """Told to stop, it finds that the session was deleted just then: too short a moment to be met from outside."""

    def _learn(self, job: Job) -> int:
        with self._storage.store.write() as c:
            purging.remove_rows(c, job.row.session_id)
        raise Interrupted(OperationState.CANCELLED)


def test_a_session_that_goes_just_as_its_fine_tune_stops(tmp_path: Path) -> None:
    """Seen to fail before it was mended: LeaseLost ended the process, and with it what others were to be taught."""
    storage = Storage(tmp_path / "data", connections=2, clock=lambda: 0.0)
    storage.prepare()
    add_session(storage, "deleted", b"")
    add_operation(storage, "deleted")
    config = WorkerConfig(data=tmp_path / "data", checkpoints=tmp_path, save_every_s=1.0, lease_s=10.0)
    worker = Overtaken(config, storage, Checkpoints(tmp_path))
    assert worker.work_once()
    assert not worker.work_once()
    assert names(storage) == []
    storage.close()
