"""Prometheus metrics: names `mier_*`, base units, never a session's id as a label."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS_S = (
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip


class Metrics:
    """One registry for each service, so that several can live in one process."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "mier_call_seconds",
            "Time from a call's arrival to its reply.",
            ["transport", "call", "outcome"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._stored = Counter("mier_transitions_stored", "Transitions made durable.", registry=self._registry)
        self._workers = Counter("mier_worker_restarts", "Times a worker ended by itself.", registry=self._registry)
        self._let_go = Counter(
            "mier_peers_let_go", "Peers that kept the service waiting.", ["transport", "owed"], registry=self._registry
        )
        self._connections = Gauge("mier_http_connections", "HTTP connections that are open.", registry=self._registry)
        self._ready = Gauge("mier_ready", "1 while calls are served.", registry=self._registry)

    def call(self, transport: str, call: str, outcome: str, seconds: float) -> None:
        """A call ended; `outcome` is OK or the reason of its refusal."""
        self._seconds.labels(transport, call, outcome).observe(seconds)

    def stored(self, steps: int) -> None:
        self._stored.inc(steps)

    def worker_ended(self) -> None:
        self._workers.inc()

    def let_go(self, transport: str, owed: str) -> None:
        """A peer was let go that owed a `request` in full, or taking an `answer`."""
        self._let_go.labels(transport, owed).inc()

    def connections(self, count: Callable[[], int]) -> None:
        """`count` says how many HTTP connections are open, when it is asked."""
        self._connections.set_function(count)

    def ready(self, ready: bool) -> None:
        self._ready.set(ready)

    def text(self) -> bytes:
        return generate_latest(self._registry)
