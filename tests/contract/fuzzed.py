"""The service that is fuzzed: it asks for keys, has one of each kind, and a session that is never missing for long.

Generated requests name what exists by `SESSION`, `OPERATION` and the names of checkpoints; the ids are put in when a
request is sent, so that examples are the same from run to run, and that a deleted session is soon replaced.
"""

from __future__ import annotations

from pathlib import Path

import httpx

from mier_client.http_transport import HttpTransport
from mier_service.access.keys import Scope
from tests.contract.helpers import ALL, CALL_S, batch
from tests.contract.keys import bearer, make_key, migrate, wait_until
from tests.contract.server import Server

CHECKPOINT = "sharp"
SESSION, OPERATION = "SESSION", "OPERATION"
MAX_BODY_BYTES = 64 * 1024
MAX_UPDATES = 12
"""Of the fine-tunes that are let through: longer ones would only keep the machine busy."""
_STEPS = 40


class Fuzzed:
    """Belongs to one thread."""

    def __init__(self, checkpoints: Path, data: Path) -> None:
        migrate(data)
        self.keys = {scope.value: make_key(data, scope) for scope in Scope}
        flags = ["--keys", "required", "--max-body-bytes", str(MAX_BODY_BYTES), "--drain-within-s", "3"]
        self.server = Server(checkpoints, data, *flags, "--grpc-reflection")
        self.admin = HttpTransport(self.server.http, api_key=self.keys["admin"])
        other = self.admin.create_session(CHECKPOINT, 0, None, "", CALL_S)
        self.keys |= {
            "elsewhere": make_key(data, Scope.ADMIN, session=other.id),
            "unknown": f"mier_{'0' * 12}_{'0' * 64}",
            "odd": "letmein",
        }
        wait_until(self.server.http, self.keys["elsewhere"], good=True)
        self._ids: dict[str, str] = {}

    def authorization(self, key: str) -> dict[str, str]:
        """The header or metadata of one of `keys`; of an empty name: none."""
        return bearer(self.keys[key]) if key else {}

    def named(self, text: str) -> str:
        """The id that a generated text stands for, or the text itself. The session has two versions, as `every_call`
        has it."""
        if text not in (SESSION, OPERATION):
            return text
        if not self._ids:
            session = self.admin.create_session(CHECKPOINT, 0, None, "", CALL_S)
            self.admin.submit_transitions(session.id, batch(_STEPS), "", CALL_S)
            self.admin.adapt(session.id, ALL, "", CALL_S)
            operation = self.admin.finetune(session.id, 1, 0, "", CALL_S)
            self.admin.cancel_operation(operation.id, "", CALL_S)
            *_, last = self.admin.watch_operation(operation.id, CALL_S)
            self._ids = {SESSION: session.id, OPERATION: last.id}
        return self._ids[text]

    def forget(self) -> None:
        """What was sent may have deleted the session."""
        self._ids = {}

    def stop(self) -> None:
        """Nothing that was tried may have broken anything that only the log tells of."""
        with httpx.Client(base_url=self.server.http, trust_env=False) as http:
            assert http.get("/readyz").json()["status"] == "ready"
        self.admin.close()
        assert self.server.stop() == 0
        log = self.server.log()
        for word in ("Traceback", '"exception"', "request_failed", "call_failed", "Task exception"):
            assert word not in log, log[max(0, log.index(word) - 500) :][:3000]
        for key in self.keys.values():
            assert key not in log
