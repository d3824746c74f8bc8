"""A real receiver of traces: an OTLP collector's gRPC service, which keeps what it gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc

WITHIN_S = 60.0


@dataclass(frozen=True)
class Span:
    """As it came."""

    name: str
    part: str
    """service.name of the process that it is from."""
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    """Trace ids."""


@dataclass
class Collector(pb_grpc.TraceServiceServicer):
    """Holds all spans that came."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    def Export(self, request: pb.ExportTraceServiceRequest, rpc: Any) -> pb.ExportTraceServiceResponse:  # noqa: N802
        with self.came:
            self.spans += _read(request)
            self.came.notify_all()
        return pb.ExportTraceServiceResponse()

    def wait_for(self, holds: Callable[[list[Span]], bool]) -> list[Span]:
        """All spans, once that holds of them."""
        with self.came:
            if not self.came.wait_for(lambda: holds(self.spans), WITHIN_S):
                raise AssertionError(f"it did not come; what came: {sorted({span.name for span in self.spans})}")
            return list(self.spans)


@contextmanager
def collecting() -> Iterator[Collector]:
    """On a free port of this machine."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def _read(request: pb.ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        part = str(_values(resource.resource.attributes).get("service.name"))
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    part=part,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes=_values(span.attributes),
                    links=tuple(link.trace_id.hex() for link in span.links),
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}
