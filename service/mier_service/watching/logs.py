"""Structured logs: one JSON object a line on standard error, each with the call that it belongs to."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog

from mier_service.watching import tracing
from mier_service.watching.calls import current_call


class _Forgiving:
    """A stream whose lines are lost where it cannot be written: a full disk must not fail the call that is logged."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_logs(level: str = "INFO") -> None:
    """Ours and those of the libraries, in one form."""
    shared: list[structlog.typing.Processor] = [
        _say_what_about,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Forgiving(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.dict_tracebacks,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_a_fault)


def _is_a_fault(record: logging.LogRecord) -> bool:
    """uvicorn says so of every WebSocket that was refused by a whole answer, which is how it should be refused."""
    return record.getMessage() != "ASGI callable returned without completing handshake."


def _say_what_about(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Every line that is written during a call names it: request, session, version, and trace. What the line says
    itself comes first."""
    known: dict[str, str | int] = {**tracing.ids()}
    call = current_call()
    if call is not None:
        known |= {"request_id": call.request_id, **call.about()}
    for name, value in known.items():
        event.setdefault(name, value)
    return event


def quiet_exporter() -> None:
    """The ONNX exporter reports optional packages that are missing, which nobody needs here. After torch's import."""
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
