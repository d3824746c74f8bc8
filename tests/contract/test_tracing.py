"""One robot's request, followed by its trace through transport, core, store and worker, read back from a collector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from mier_client.transport import Transport
from tests.contract.collector import Collector, Span, collecting
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, fine_tune, submit
from tests.contract.server import Server

ROBOT = TracerProvider(shutdown_on_exit=False).get_tracer("robot")


@dataclass(frozen=True)
class Traced:
    """A service that sends its traces to the collector; of requests without a trace of their own, none."""

    server: Server
    collector: Collector


@pytest.fixture(scope="module")
def traced(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as collector:
        data = tmp_path_factory.mktemp("traced") / "data"
        flags = ("--trace-endpoint", collector.endpoint, "--trace-ratio", "0", "--poll-every-s", "0.05")
        server = Server(checkpoints, data, *flags)
        yield Traced(server, collector)
        assert server.stop() == 0
        assert "Traceback" not in server.log()
    monkeypatch.undo()


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, traced: Traced) -> Iterator[Transport]:
    made = connect(traced.server, request.param)
    yield made
    made.close()


def _trace_id(span: object) -> str:
    return format(span.get_span_context().trace_id, "032x")  # type: ignore[attr-defined]


def _kind(transport: Transport) -> str:
    return "HTTP" if type(transport).__name__ == "HttpTransport" else "gRPC"


def _above(span: Span, spans: list[Span]) -> list[str]:
    """Names of the spans that it is below, nearest first."""
    by_id = {other.span_id: other for other in spans}
    names = []
    while span.parent_id in by_id:
        span = by_id[span.parent_id]
        names.append(span.name)
    return names


def test_a_robots_trace_goes_through_to_the_worker(traced: Traced, transport: Transport) -> None:
    """The robot's own span, then what the service and its worker did for it, hours apart as it may be.

    Broken on purpose: without `carried` in `learning._queue` the worker's spans are in no trace of the robot."""
    session = transport.create_session(REWARD, 7, None, "", CALL_S)
    submit(transport, session, batch(40))
    with ROBOT.start_as_current_span("robot") as robot:
        transport.adapt(session.id, ALL, "", CALL_S)
        transport.act(session.id, OBSERVATION, MEAN, CALL_S)
        done = fine_tune(transport, session)
    mine = _trace_id(robot)
    kind = _kind(transport)
    # The transport's own spans end after their replies.
    wanted = {"worker.fine_tune", f"{kind} adapt", f"{kind} act", f"{kind} fine_tune", f"{kind} watch_operation"}
    spans = traced.collector.wait_for(lambda all_: wanted <= {s.name for s in all_ if s.trace_id == mine})
    spans = [span for span in spans if span.trace_id == mine]
    lines = {(span.part, span.name, *_above(span, spans)) for span in spans}
    serve, worker = "mier-serve", "mier-worker"
    assert (serve, "acting.act", f"{kind} act") in lines
    within_adapt = ("pool.adapt", "learning.adapt", f"{kind} adapt")
    assert (serve, "store.read", *within_adapt) in lines
    assert (serve, "learning.infer", *within_adapt) in lines
    assert (serve, "store.write", *within_adapt) in lines
    asked = ("pool.store", "learning.fine_tune", f"{kind} fine_tune")
    # The fine-tune was asked for within the transaction that stores it.
    kept = ("store.write", *asked)
    assert (worker, "worker.fine_tune", *kept) in lines
    for step in ("worker.learn", "worker.judge", "worker.publish"):
        assert (worker, step, "worker.fine_tune", *kept) in lines
    assert (worker, "store.write", "worker.publish", "worker.fine_tune", *kept) in lines
    (learned,) = [span for span in spans if span.name == "worker.fine_tune"]
    assert learned.attributes["mier.operation"] == done.id
    (acted,) = [span for span in spans if span.name == f"{kind} act"]
    assert acted.attributes["mier.session"] == session.id
    assert acted.attributes["mier.policy_version"] == 2
    assert acted.attributes["mier.outcome"] == "OK"
    assert len(acted.attributes["mier.request_id"]) == 32
    assert len(spans) < 120, "a fine-tune's loop must not make a span for each look at the store"


def test_the_log_names_the_trace(traced: Traced, transport: Transport) -> None:
    """Broken on purpose: without `tracing.ids` in the log's processor no line does."""
    with ROBOT.start_as_current_span("robot") as robot:
        session = transport.create_session(REWARD, 7, None, "", CALL_S)
    lines = [json.loads(line) for line in traced.server.log().splitlines()]
    (line,) = [line for line in lines if line.get("session") == session.id and line["event"] == "call"]
    assert line["trace_id"] == _trace_id(robot)


def test_a_stream_does_not_become_one_endless_trace(traced: Traced) -> None:
    """Acts of a control loop are not below its stream's span, which ends with the stream alone.

    Broken on purpose: without `of_its_own` both acts are in the robot's trace."""
    transport = connect(traced.server, "grpc")
    session = transport.create_session(REWARD, 7, None, "", CALL_S)
    with ROBOT.start_as_current_span("robot") as robot:
        stream = transport.open_act_stream()
        for _ in range(2):
            stream.act(session.id, OBSERVATION, MEAN, CALL_S)
        stream.close()
    mine = _trace_id(robot)
    transport.close()
    spans = traced.collector.wait_for(
        lambda all_: any(s.trace_id == mine and s.name == "gRPC act_stream" for s in all_)
    )
    assert [span.name for span in spans if span.trace_id == mine] == ["gRPC act_stream"]


def test_nothing_is_traced_that_nobody_asked_for(traced: Traced, transport: Transport) -> None:
    """The ratio is 0, so only requests with a trace of their own are. Broken on purpose: with a ratio of 1 whatever is
    asked for, the session's creation came."""
    session = transport.create_session(REWARD, 7, None, "", CALL_S)
    transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    with ROBOT.start_as_current_span("robot") as robot:
        transport.get_session(session.id, CALL_S)
    mine = _trace_id(robot)
    name = f"{_kind(transport)} get_session"
    spans = traced.collector.wait_for(lambda all_: any(s.trace_id == mine and s.name == name for s in all_))
    assert not [span for span in spans if span.attributes.get("mier.session") == session.id and span.trace_id != mine]


def test_an_endpoint_without_a_collector_holds_nothing_up(checkpoints: Path, tmp_path: Path) -> None:
    """Nobody listens there; the service serves, and ends."""
    with collecting() as gone:
        endpoint = gone.endpoint
    server = Server(checkpoints, tmp_path / "data", "--trace-endpoint", endpoint, "--finetune-workers", "0")
    transport = connect(server, "http")
    with ROBOT.start_as_current_span("robot"):
        transport.create_session(REWARD, 7, None, "", CALL_S)
    transport.close()
    assert server.stop() == 0
