"""Row 5: `act` while its session adapts, fine-tunes and changes versions, against the same act while nothing learns."""

from __future__ import annotations

import gc
import json
import math
import select
import subprocess
import sys
import time
from collections import defaultdict

from mier_bench.interleaving import Pace, Timing
from mier_bench.row import MICROSECONDS, Row, Target, Unequal, Wanted
from mier_bench.serving import ours as o
from mier_bench.serving.http_wire import Connection, Refused
from mier_bench.serving.processes import busy_clock
from mier_bench.statistics import bootstrap_median_interval, median_of, quantile, round_ratios

ID = 5
SWAPS, DIM = 1000, 17
WHAT = "p99 of act, HTTP, JSON, while its session adapts, fine-tunes and swaps versions"
TARGET = Target(Wanted.AT_MOST, 1.5)


class Acts:
    """Acts by one connection; what was answered by each version."""

    def __init__(self, port: int, asked: bytes) -> None:
        self._connection, self._asked = Connection(port), asked
        self.answers: dict[int, set[tuple[str, tuple[float, ...]]]] = defaultdict(set)
        self.dropped = 0

    def one(self) -> float:
        """How long it took, in seconds."""
        began = time.perf_counter()
        try:
            body = self._connection.exchange(self._asked)
        except Refused:
            self.dropped += 1
            return time.perf_counter() - began
        took = time.perf_counter() - began
        reply = json.loads(body)
        self.answers[reply["policy_version"]].add((reply["weights_hash"], tuple(reply["action"])))
        return took

    @property
    def mixed(self) -> int:
        """Answers that are another version's than they say: a version has one action for one observation, and no two
        have the same."""
        each = [next(iter(found)) for found in self.answers.values()]
        return sum(len(found) - 1 for found in self.answers.values()) + len(each) - len(set(each))


def rows(pace: Pace) -> list[Row]:
    with o.our_service(DIM) as service:
        session = service.session(DIM)
        acts = Acts(service.port, o.json_request(session, DIM))
        command = [sys.executable, "-m", "mier_bench.serving.learner", service.http, session]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as learner:
            assert learner.stdin is not None
            assert learner.stdout is not None
            if learner.stdout.readline() != "prepared\n":
                raise RuntimeError("the learner did not begin")
            idle, learning = [], []
            cpu: dict[str, list[float]] = {"idle": [], "learning": []}
            swaps = math.ceil(SWAPS / pace.rounds)
            clock = busy_clock(service.server)
            for _ in range(pace.rounds):
                gc.collect()
                began, used = time.perf_counter(), clock()
                calls = []
                while time.perf_counter() - began < pace.slice_s:
                    calls.append(acts.one())
                idle.append(tuple(calls))
                cpu["idle"].append((clock() - used) / len(calls))
                used, calls = clock(), []
                learner.stdin.write(f"{swaps}\n")
                while not select.select([learner.stdout], [], [], 0)[0]:
                    calls.append(acts.one())
                learner.stdout.readline()
                learning.append(tuple(calls))
                cpu["learning"].append((clock() - used) / len(calls))
            learner.stdin.close()
    if acts.dropped or acts.mixed:
        raise Unequal(f"expected 0 dropped and 0 mixed, came {acts.dropped} dropped and {acts.mixed} mixed")
    return [_row(Timing(tuple(idle), tuple(cpu["idle"])), Timing(tuple(learning), tuple(cpu["learning"])), acts, swaps)]


def _row(idle: Timing, learning: Timing, acts: Acts, swaps: int) -> Row:
    ratios = round_ratios(*([quantile(calls, 0.99) for calls in t.rounds] for t in (learning, idle)))
    return Row(
        ID,
        WHAT,
        MICROSECONDS.name,
        "the same act while nothing learns",
        TARGET,
        ours=MICROSECONDS.of_s(learning.p99_s),
        peer=MICROSECONDS.of_s(idle.p99_s),
        ratio=median_of(ratios),
        interval=bootstrap_median_interval(ratios),
        p99={"ours": MICROSECONDS.of_s(learning.p99_s), "peer": MICROSECONDS.of_s(idle.p99_s)},
        rounds=len(ratios),
        checked={"dropped": acts.dropped, "mixed": acts.mixed},
        notes=f"{swaps * len(ratios)} swaps, {sum(map(len, learning.rounds))} acts by {len(acts.answers)} versions "
        f"meanwhile; medians {MICROSECONDS.of_s(learning.median_s):.0f} and {MICROSECONDS.of_s(idle.median_s):.0f} µs",
    )
