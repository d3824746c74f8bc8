"""How a call is watched from its arrival to its reply, over both transports alike: metrics, span, line in the log."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog

from mier_service.access.callers import current_caller
from mier_service.errors import Reason
from mier_service.watching.calls import Call, begin
from mier_service.watching.metrics import Metrics
from mier_service.watching.tracing import Attributes, end_server_span, server_span

_log = structlog.get_logger(__name__)
_LOUD = frozenset(
    (
        "create_session", "delete_session", "pause_session", "resume_session", "adapt", "fine_tune", "cancel_operation",
        "promote_version", "rollback_version", "pin_version", "unpin_version", "move_session",
    )
)  # fmt: skip
"""Calls that decide something: a line each. What comes at control rate, reads and probes have theirs at DEBUG."""
_FAULTS = frozenset((Reason.INTERNAL.value, Reason.STORAGE_UNAVAILABLE.value))


class CallWatch:
    """One call."""

    def __init__(
        self, metrics: Metrics, transport: str, request_id: str, headers: Iterable[tuple[str, str]], name: str = "none"
    ) -> None:
        """The call has arrived. `headers` are looked at for a traceparent."""
        self._started_s = time.perf_counter()
        self._metrics = metrics
        self._call = Call(transport, request_id, name)
        begin(self._call)
        metrics.call_began(transport)
        self._span = server_span(name, headers)

    @property
    def traced(self) -> bool:
        """Whether anybody will see the attributes that it ends with."""
        return self._span is not None

    def ended(self, outcome: str, name: str, span_name: str, attributes: Attributes) -> None:
        """The reply is out. `outcome` is OK or the reason of its refusal; `name` is known by now."""
        call = self._call
        call.name = name
        seconds = time.perf_counter() - self._started_s
        self._metrics.call_ended(call.transport, name, outcome, seconds)
        log = _log.info if name in _LOUD else _log.debug
        log(
            "call",
            transport=call.transport,
            call=name,
            outcome=outcome,
            caller=current_caller(),
            seconds=round(seconds, 6),
        )
        if self._span is not None:
            about = {f"mier.{key}": value for key, value in call.about().items()}
            end_server_span(
                self._span,
                span_name,
                {"mier.request_id": call.request_id, "mier.outcome": outcome, **about, **attributes},
                failed=outcome in _FAULTS,
            )
