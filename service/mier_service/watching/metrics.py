"""Prometheus metrics: names `mier_*`, base units, never a session's id as a label. docs/operations.md lists them.

What happens is counted as it happens; what is (queues, sessions in memory, the store) is looked at when it is asked
for, or comes from the last look of `Monitor`. Reading them touches neither the disk nor the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from mier_service.errors import Reason
from mier_service.learning.worker_news import Ended, News, Progress
from mier_service.offload import BoundedPool
from mier_service.store.row_counts import StoreFigures
from mier_service.values import (
    SHADOW_VERDICTS,
    AdaptationValue,
    FallbackKind,
    FallbackReason,
    OperationState,
    Promotion,
    ShadowState,
)

# A third of all series, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]
_CALL_S = (
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
_FINETUNE_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_OOD = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_PERCENTILES = (5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 100.0)
_NATS = (-1.0, -0.1, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_TRANSPORTS = ("http", "grpc")
_FINAL = tuple(state.value for state in OperationState if state.final)


class Metrics:
    """One registry for each service, so that several can live in one process."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(namespace="mier", registry=registry)
        Info("mier_build", "What runs.", registry=registry).info({"version": version("mier")})

        def histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, what, labels, buckets=buckets, registry=registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(name, what, labels, registry=registry)

        # Of what is counted at control rate the series are kept: looking one up takes longer than counting.
        call = "Time from a call's arrival to its reply; of a stream, to its end."
        self._call_s = cache(histogram("mier_call_seconds", call, _CALL_S, "transport", "call", "outcome").labels)
        self._faults = counter("mier_internal_errors", "Calls that ended in an error of the service.", "transport")
        self._under_way = cache(gauge("mier_calls_under_way", "Calls and streams under way.", "transport").labels)
        self._acts = cache(
            counter("mier_acts", "Actions asked for, alone, in streams or in batches.", "transport", "outcome").labels
        )
        act = "Time that one action takes within the service, without its transport; batches are not in it."
        self._act_s = cache(histogram("mier_act_seconds", act, _CALL_S, "transport").labels)
        self._stored = counter("mier_transitions_stored", "Transitions made durable.")
        self._let_go = counter("mier_peers_let_go", "Peers that kept the service waiting.", "transport", "owed")
        self._connections = gauge("mier_http_connections", "HTTP connections that are open.")
        fallbacks = "Acts that a fallback answered, since the active version's answer would have been late."
        self._fallbacks = counter("mier_fallbacks", fallbacks, "kind", "reason")
        adapt = "Time that a context adaptation computes, without waiting and storing."
        self._adapt_s = histogram("mier_adapt_seconds", adapt, _CALL_S)
        self._ood = histogram("mier_adapt_ood_score", "OOD scores of adaptations.", _OOD)
        percentile = "OOD percentiles of adaptations, 0 to 100, where the checkpoint is calibrated for them."
        self._ood_percentile = histogram("mier_adapt_ood_percentile", percentile, _PERCENTILES)
        nats = "Held-out NLL before an adaptation less that after it, nats per predicted value."
        self._nll = histogram("mier_adapt_heldout_nll_gain_nats", nats, _NATS)
        self._published = counter("mier_versions_published", "New policy versions.", "origin", "promotion")
        self._decisions = counter("mier_decisions", "Decisions by hand on what acts.", "kind")
        fell = "Rollbacks because the returns that robots reported fell."
        self._rollbacks = counter("mier_automatic_rollbacks", fell)
        in_shadow = "Verdicts on candidates that acted in shadow."
        self._shadows = counter("mier_shadow_verdicts", in_shadow, "verdict")

        finetune = "Time from asking for a fine-tune to its end, waiting included."
        self._finetune_s = histogram("mier_finetune_seconds", finetune, _FINETUNE_S, "state")
        self._updates = counter("mier_finetune_updates", "Gradient updates of fine-tunes.")
        self._verdicts = counter("mier_gate_verdicts", "Verdicts of the gate on fine-tuned versions.", "verdict")
        self._workers = counter("mier_worker_restarts", "Times a worker ended by itself.")
        self._finetunes = gauge("mier_finetunes", "Fine-tunes in the store that are not final.", "state")
        self._waiting_s = gauge("mier_finetune_oldest_waiting_seconds", "How long the oldest one has waited; 0: none.")

        self._ready = gauge("mier_ready", "1 while calls are served and every check of /readyz holds.")
        self._check = gauge("mier_check", "1 while a check of /readyz holds.", "check")
        self._pool = gauge("mier_pool_pending", "Calls that run in a pool of threads or wait for it.", "pool")
        self._pool_limit = gauge("mier_pool_limit", "As many may; what comes beyond is refused.", "pool")
        self._active = gauge("mier_active_sessions", "Sessions in memory, ready to act.")
        self._behind = gauge(
            "mier_sessions_behind", "Sessions whose active version cannot be loaded: an older one acts."
        )
        self._policies = gauge("mier_policies_loaded", "Policies in memory.")
        self._checkpoints = gauge("mier_checkpoint_info", "1 for each usable checkpoint.", "checkpoint", "hash")

        self._store_s = cache(histogram("mier_store_seconds", "Time that a transaction takes.", _CALL_S, "kind").labels)
        self._store_failures = counter("mier_store_failures", "Transactions that the storage failed.", "kind")
        self._sessions = gauge("mier_sessions", "Sessions in the store.", "state")
        self._transitions = gauge("mier_store_transitions", "Transitions in the store.")
        self._versions = gauge("mier_store_versions", "Policy versions in the store.", "origin")
        self._database = gauge("mier_store_database_bytes", "Size of the database, with its log.")
        self._free = gauge("mier_store_disk_free_bytes", "Room left on the disk of the data folder.")
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """What has not happened yet is 0, not unknown: a rate from nothing to one would not be seen."""
        for transport in _TRANSPORTS:
            self._under_way(transport)
            self._faults.labels(transport)
            self._acts(transport, "OK")
            self._act_s(transport)
        for transport, owed in product(_TRANSPORTS, ("request", "answer")):
            self._let_go.labels(transport, owed)
        for fallback, reason in product(FallbackKind, FallbackReason):
            self._fallbacks.labels(fallback.value, reason.value)
        for state in _FINAL:
            self._finetune_s.labels(state)
        for verdict in SHADOW_VERDICTS:
            self._shadows.labels(verdict.value)
        for promotion in Promotion:
            self._verdicts.labels(promotion.value)
        for kind in ("read", "write"):
            self._store_s(kind)
            self._store_failures.labels(kind)

    def call_began(self, transport: str) -> None:
        self._under_way(transport).inc()

    def call_ended(self, transport: str, call: str, outcome: str, seconds: float) -> None:
        """`outcome` is OK or the reason of its refusal."""
        self._under_way(transport).dec()
        self.answered(transport, call, outcome, seconds)

    def answered(self, transport: str, call: str, outcome: str, seconds: float) -> None:
        """A call, or one message of a connection that stays open."""
        self._call_s(transport, call, outcome).observe(seconds)
        if outcome == Reason.INTERNAL.value:
            self._faults.labels(transport).inc()

    def acted(self, transport: str, outcome: str, seconds: float | None = None) -> None:
        """One action, or its refusal; `seconds` of one that was asked for alone."""
        self._acts(transport, outcome).inc()
        if seconds is not None:
            self._act_s(transport).observe(seconds)

    def adapted(self, value: AdaptationValue) -> None:
        found = value.model_context
        self._adapt_s.observe(value.elapsed_ms / 1000.0)
        if found.ood_score is not None:
            self._ood.observe(found.ood_score)
        if found.ood_percentile is not None:
            self._ood_percentile.observe(found.ood_percentile)
        if found.heldout_nll_before is not None and found.heldout_nll_after is not None:
            self._nll.observe(found.heldout_nll_before - found.heldout_nll_after)
        if value.published:
            self._published.labels(value.active_version.origin.value, value.active_version.promotion.value).inc()

    def decided(self, kind: str) -> None:
        """`kind`: promote, roll_back, pin, unpin, move."""
        self._decisions.labels(kind).inc()

    def rolled_back(self) -> None:
        """Because returns fell."""
        self._rollbacks.inc()

    def shadow_ended(self, verdict: ShadowState) -> None:
        """Of a candidate, by what was seen of it."""
        self._shadows.labels(verdict.value).inc()

    def stored(self, steps: int) -> None:
        self._stored.inc(steps)

    def fell_back(self, kind: str, reason: str) -> None:
        self._fallbacks.labels(kind, reason).inc()

    def worker_ended(self) -> None:
        self._workers.inc()

    def let_go(self, transport: str, owed: str) -> None:
        """A peer was let go that owed a `request` in full, or taking an `answer`."""
        self._let_go.labels(transport, owed).inc()

    def connections(self, count: Callable[[], int]) -> None:
        """`count` says how many HTTP connections are open, when it is asked."""
        self._connections.set_function(count)

    def worker_told(self, news: News) -> None:
        """What a worker of this service did."""
        match news:
            case Progress():
                self._updates.inc(news.updates)
            case Ended():
                self._finetune_s.labels(news.state.value).observe(news.seconds)
                if news.promotion is not None:
                    self._verdicts.labels(news.promotion.value).inc()
                    self._published.labels("fine_tune", news.promotion.value).inc()

    def store_call(self, kind: str, seconds: float, failed: bool) -> None:
        """A transaction ended; `kind` is read or write."""
        self._store_s(kind).observe(seconds)
        if failed:
            self._store_failures.labels(kind).inc()

    def checked(self, ready: bool, checks: Mapping[str, bool]) -> None:
        """What the last look found."""
        self._ready.set(ready)
        for name, holds in checks.items():
            self._check.labels(name).set(holds)

    def store_holds(self, found: StoreFigures) -> None:
        """What the last look at the store found."""
        for state, count in found.sessions.items():
            self._sessions.labels(state).set(count)
        for state, count in found.finetunes.items():
            self._finetunes.labels(state).set(count)
        for origin, count in found.versions.items():
            self._versions.labels(origin).set(count)
        self._transitions.set(found.transitions)
        self._waiting_s.set(found.oldest_waiting_s)
        self._database.set(found.database_bytes)
        self._free.set(found.disk_free_bytes)

    def holds_checkpoint(self, name: str, checkpoint_hash: str) -> None:
        self._checkpoints.labels(name, checkpoint_hash).set(1)

    def watch_pool(self, pool: BoundedPool) -> None:
        self._pool.labels(pool.name).set_function(lambda: pool.pending)
        self._pool_limit.labels(pool.name).set(pool.limit)

    def watch_memory(
        self, active: Callable[[], float], behind: Callable[[], float], policies: Callable[[], float]
    ) -> None:
        self._active.set_function(active)
        self._behind.set_function(behind)
        self._policies.set_function(policies)

    def text(self) -> bytes:
        """Takes milliseconds, so it is not for the event loop."""
        return generate_latest(self._registry)
