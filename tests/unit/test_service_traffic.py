"""What the page says of acting, from counts that only ever grow."""

from __future__ import annotations

import math

import pytest

from mier_service.watching.metrics import Acting, Metrics
from mier_service.watching.traffic import Traffic, between

NOTHING = Acting(acts=0, refused=0, stored=0, under_way=0, within_s={0.001: 0, 0.002: 0, math.inf: 0})


def test_rates_are_of_the_time_between_two_looks() -> None:
    """Broken on purpose: rates since the start."""
    before = Acting(acts=100, refused=5, stored=40, under_way=1, within_s={0.001: 100, 0.002: 100, math.inf: 100})
    after = Acting(acts=300, refused=7, stored=140, under_way=1, within_s={0.001: 200, 0.002: 300, math.inf: 300})
    found = between(10.0, before, 12.0, after)
    assert (found.acts_per_s, found.refused_per_s, found.stored_per_s) == (100.0, 1.0, 50.0)
    # Half of the 200 took up to 1 ms; linear within a bucket, as Prometheus has it.
    assert found.p50_ms == pytest.approx(1.0)
    assert found.p99_ms == pytest.approx(1.98)


def test_where_nobody_acted_there_is_no_time() -> None:
    """Broken on purpose: 0 ms."""
    found = between(0.0, NOTHING, 2.0, NOTHING)
    assert found.p50_ms is None
    assert found.p99_ms is None


def test_beyond_the_last_bucket_is_said_as_its_bound() -> None:
    """Broken on purpose: infinity, which JSON has no word for."""
    after = Acting(acts=1, refused=0, stored=0, under_way=0, within_s={0.001: 0, 0.002: 0, math.inf: 1})
    assert between(0.0, NOTHING, 2.0, after).p99_ms == pytest.approx(2.0)


def test_the_metrics_are_those_that_calls_count() -> None:
    """Over both transports. Broken on purpose: a name in `Metrics.acting` misspelt; refusals among the acts."""
    metrics, now_s = Metrics(), iter((0.0, 2.0))
    traffic = Traffic(metrics, lambda: next(now_s))
    traffic.take(metrics.acting())
    for transport in ("http", "grpc"):
        metrics.acted(transport, "OK", 0.0007)
        metrics.acted(transport, "OVERLOADED")
        metrics.call_began(transport)
    metrics.stored(6)
    traffic.take(metrics.acting())
    (found,) = traffic.intervals
    assert (found.acts_per_s, found.refused_per_s, found.stored_per_s) == (1.0, 1.0, 3.0)
    assert found.p99_ms is not None
    assert 0.5 < found.p99_ms <= 1.0
    assert traffic.now is not None
    assert traffic.now.under_way == 2.0
