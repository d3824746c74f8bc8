"""Traces: where the time of one request went, from the robot's own span through transport, use case and store to the
worker that fine-tunes for it hours later.

Off unless `--trace-endpoint` names a collector (OTLP over gRPC); then the OpenTelemetry SDK is needed (extra `otel`).
While it is off, `span` costs next to nothing. W3C trace context comes in with a request (`traceparent`, over HTTP as a
header, over gRPC as metadata) and is kept with a fine-tune's operation, so that its worker's spans join.

Whether a request is traced is its caller's decision where it sent a traceparent, a matter of chance (`--trace-ratio`)
where not. Nothing is added below a span that is not recorded.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mier_service.config import CannotStart
from mier_service.errors import Reason, ServiceError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = Mapping[str, str | int | float | bool]
_FLUSH_WITHIN_S = 3.0
_EXPORT_WITHIN_S = 3
_W3C = TraceContextTextMapPropagator()
_quiet: ContextVar[bool] = ContextVar("mier_trace_quiet", default=False)

_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def start(endpoint: str | None, ratio: float, part: str) -> None:
    """Once for each process, before it serves; nothing without an endpoint. Raises `CannotStart`.

    Args:
        endpoint: of the collector, as in http://127.0.0.1:4317.
        ratio: of requests without a traceparent that are traced, 0 to 1.
        part: which process this is: mier-serve or mier-worker.
    """
    global _provider, _tracer
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise CannotStart(
            f"--trace-endpoint needs the OpenTelemetry SDK ({error}): pip install 'mier[service,otel]'"
        ) from error
    own: dict[str, str] = {SERVICE_VERSION: version("mier")}
    if "OTEL_SERVICE_NAME" not in os.environ:
        own[SERVICE_NAME] = part
    sampler = ParentBased(TraceIdRatioBased(ratio))
    _provider = TracerProvider(sampler, Resource.create(own), shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_WITHIN_S)))
    _tracer = _provider.get_tracer("mier_service")


def stop() -> None:
    """Sends what is left. Bounded: a collector that does not answer must not hold the end."""
    global _provider, _tracer
    if _provider is not None:
        sender = threading.Thread(target=_provider.shutdown, name="mier-traces", daemon=True)
        sender.start()
        sender.join(_FLUSH_WITHIN_S)
        _provider, _tracer = None, None


def server_span(name: str, headers: Iterable[tuple[str, str]]) -> Span | None:
    """The span of a request that came in, and this context's own from here on; to be ended by whoever began it."""
    if _tracer is None:
        return None
    span = _tracer.start_span(name, _W3C.extract(dict(headers)), SpanKind.SERVER)
    otel_context.attach(trace.set_span_in_context(span))
    return span


def end_server_span(span: Span | None, name: str, attributes: Attributes, failed: bool) -> None:
    """By now it is known what the request was."""
    if span is None:
        return
    span.update_name(name)
    span.set_attributes(dict(attributes))
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def span(name: str, attributes: Attributes | None = None, *, of_its_own: bool = False) -> AbstractContextManager[Span]:
    """A step of what is under way; nothing where nothing is, as in upkeep. `of_its_own`: a trace of its own, linked to
    what is under way, which may go on for hours."""
    if _tracer is None or _quiet.get():
        return _NOTHING
    above = trace.get_current_span()
    if of_its_own:
        links = [Link(above.get_span_context())] if above.is_recording() else []
        nothing_above = otel_context.Context()
        return _step(_tracer.start_span(name, nothing_above, attributes=attributes, links=links))
    if not above.is_recording():
        return _NOTHING
    return _step(_tracer.start_span(name, attributes=attributes))


_NOTHING: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)


@contextmanager
def _step(span: Span) -> Iterator[Span]:
    # Not by `use_span`, which would record the text of refusals as exceptions.
    token = otel_context.attach(trace.set_span_in_context(span))
    try:
        yield span
    except ServiceError as error:
        span.set_attribute("mier.outcome", error.reason.value)
        if error.rule.http_status >= 500:
            span.set_status(Status(StatusCode.ERROR, error.reason.value))
        raise
    except Exception as error:
        span.set_attribute("mier.outcome", Reason.INTERNAL.value)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        otel_context.detach(token)
        span.end()


@contextmanager
def quiet() -> Iterator[None]:
    """No spans within: for loops that would make thousands of them."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def carried() -> str | None:
    """What is under way, as JSON of W3C headers: for whoever goes on with it in another process."""
    if _tracer is None:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return json.dumps(carrier) if carrier else None


@contextmanager
def going_on(carried: str | None, name: str, attributes: Attributes) -> Iterator[Span]:
    """A span below the one that `carried` tells of, in this process."""
    if _tracer is None:
        yield trace.INVALID_SPAN
        return
    above = _W3C.extract(json.loads(carried) if carried else {})
    with _step(_tracer.start_span(name, above, SpanKind.CONSUMER, attributes)) as span:
        yield span


def ids() -> dict[str, str]:
    """Of the span under way, for the log."""
    if _tracer is None:
        return {}
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(found.trace_id), "span_id": trace.format_span_id(found.span_id)}
