"""Rows and the harness: what is judged, what is written down, and that contenders take turns."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from mier_bench.interleaving import Pace, Timing, cpu_ratio, interleave, ratio
from mier_bench.pinning import pinned
from mier_bench.report import document, table
from mier_bench.row import MILLISECONDS, Row, Target, Unequal, Wanted, absent, compared, per_second, require_equal
from mier_bench.rows import ROWS

FASTER = Target(Wanted.AT_LEAST, 3.0)
CHEAP = Target(Wanted.AT_MOST, 1.3)


def timing(*rounds: float, cpu: float = 1.0) -> Timing:
    """Three calls a round, one of them interrupted."""
    return Timing(tuple((r, r, 50.0 * r) for r in rounds), tuple(cpu * r for r in rounds))


def test_a_ratio_is_the_median_over_rounds_of_medians_over_calls() -> None:
    ours, peer = timing(1.0, 2.0, 1.0, 1.0, 4.0), timing(2.0, 8.0, 3.0, 5.0, 4.0)
    found = ratio(peer, ours)  # 2, 4, 3, 5, 1
    assert (found.median, found.low, found.high) == (3.0, 1.0, 5.0)
    assert cpu_ratio(timing(1.0, 1.0, 1.0, cpu=0.5), timing(1.0, 1.0, 1.0)).median == 0.5
    assert ours.median_s == 1.0
    assert ours.p99_s == 200.0
    assert timing(1.0, 1.0, 1.0, cpu=26.0).cpu_share == pytest.approx(1.5)  # 26 of (1 + 1 + 50) / 3


def test_what_is_judged() -> None:
    ours, peer = timing(*[0.002] * 5), timing(*[0.008] * 5)
    faster = compared(1, "a thing", FASTER, MILLISECONDS, ours, ("theirs", peer))
    assert (faster.ours, faster.peer, faster.ratio, faster.met) == (2.0, 8.0, 4.0, True)
    dear = compared(1, "a thing", CHEAP, per_second("things", 4), ours, ("theirs", peer), ("nothing", ours))
    assert (dear.ours, dear.peer, dear.ratio, dear.met, dear.floor) == (2000.0, 500.0, 0.25, True, 2000.0)
    assert compared(1, "a thing", CHEAP, MILLISECONDS, peer, ("theirs", ours)).met is False


def test_absent_hardware_is_neither_met_nor_missed() -> None:
    row = absent(9, "on a GPU", FASTER, MILLISECONDS, "theirs", "no GPU here")
    assert row.met is None
    assert row.to_json()["met"] is None


def test_the_document_has_what_was_asked_for() -> None:
    idle = timing(*[1.0] * 5, cpu=52 / 3)
    row = compared(4, "a thing", CHEAP, MILLISECONDS, idle, ("theirs", idle))
    written = json.loads(json.dumps(document([row], Pace(), core=1)))
    assert {"id", "what", "ours", "peer", "ratio", "target", "met", "interval", "unit", "seeds"} <= set(
        written["rows"][0]
    )
    assert {"versions", "hardware", "command"} <= set(written)
    assert written["rows"][0]["target"] == {"wanted": "at most", "ratio": 1.3}
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table([row, absent(9, "on a GPU", FASTER, MILLISECONDS, "theirs", "no GPU here")]))
    text = console.export_text()
    assert "1.00 [1.00, 1.00]" in text
    assert "no GPU here" in text


def test_contenders_take_turns() -> None:
    heard: list[str] = []
    timed = interleave({name: lambda name=name: heard.append(name) for name in "ab"}, Pace(rounds=5, slice_s=1e-9))  # type: ignore[misc]
    turns = heard[2:]  # after one call each to warm up
    assert turns == ["a", "b"] * 5
    assert all(len(t.rounds) == 5 and len(t.round_cpu_s) == 5 for t in timed.values())


@pytest.mark.parametrize(("rounds", "slice_s"), [(3, 1.0), (6, 1.0), (5, 0.0)])
def test_a_pace_that_shows_nothing_is_refused(rounds: int, slice_s: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        Pace(rounds, slice_s)


def test_contenders_that_differ_are_not_timed() -> None:
    assert require_equal("sums", 1e-7, 1e-6) == 1e-7
    for difference in (1e-5, math.nan):
        with pytest.raises(Unequal, match="sums: expected a difference of at most 1e-06"):
            require_equal("sums", difference, 1e-6)


def test_pinning_is_undone() -> None:
    import os

    before = os.sched_getaffinity(0)
    with pinned(True) as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


def test_the_table_has_its_rows() -> None:
    assert sorted(ROWS) == [3, 4, 6, 7, 8, 9, 10, 11]
    assert all(isinstance(row, Row) for row in ROWS[11](Pace(rounds=5, slice_s=1e-9)))
