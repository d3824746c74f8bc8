"""`make promises`: the long form of every promise of docs/reliability.md, as a table and as out/promises.json.

A row is a promise and the tests that try it; `tried` is what a test counts itself (cycles, calls, examples), or 1 for
each test. Each row says the command and the commit that it is of. With `--only`, rows of other promises stay in the
file as they are: what takes an hour need not be done again for one of them. With `--add`, what is tried now counts
beside what the file says of the same promise, for runs of several seeds. The status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

PROMISES = {
    "nothing acknowledged is lost or doubled": ["tests/promises/test_kill.py", "tests/promises/test_kill_apart.py"],
    "what is committed survives power loss": ["tests/promises/test_power_loss.py"],
    "a retry equals a single call": ["tests/promises/test_lost_answers.py", "tests/contract/test_idempotency.py"],
    "a failing disk or file is said, and passes": [
        "tests/promises/test_storage_faults.py",
        "tests/promises/test_full_disk.py",
    ],
    "a restart resumes": ["tests/promises/test_resume.py"],
    "a deadline is kept": ["tests/promises/test_in_time.py", "tests/contract/test_deadlines.py"],
    "actions keep their limits": ["tests/contract/test_action_limits.py"],
    "of two services on a PostgreSQL, one dies": [
        "tests/promises/test_two_services.py",
        "tests/unit/test_service_store.py",
        "tests/unit/test_service_store_postgres.py",
    ],
    "it ends well": ["tests/promises/test_ending.py"],
    "lineage by hand": ["tests/contract/test_lineage.py"],
    "who may": ["tests/contract/test_access.py", "tests/contract/test_keys.py", "tests/contract/test_tls.py"],
    "backup, retention, migration, moving": [
        "tests/contract/test_backup.py",
        "tests/contract/test_retention.py",
        "tests/contract/test_moving.py",
        "tests/contract/test_first_release.py",
        "tests/contract/test_later_release.py",
        "tests/contract/test_older_client.py",
    ],
    "sessions never see each other": ["tests/contract/test_isolation.py"],
    "bounded, and dead peers freed": [
        "tests/contract/test_key_bounds.py",
        "tests/contract/test_fair_turns.py",
        "tests/contract/test_connections.py",
        "tests/contract/test_slow_peers_*.py",
        "tests/contract/test_idle_peers.py",
    ],
    "a flood of one key leaves others their turn": [
        "tests/promises/test_flood.py",
        "tests/unit/test_service_loop_turns.py",
    ],
    "memory is bounded": ["tests/promises/test_memory.py"],
    "no input breaks it": ["tests/contract/test_fuzz_*.py", "tests/unit/test_fuzz_*.py"],
}
"""Patterns of files by promise; those that are not there yet are left out of the table."""

PACKAGES = ("mier", "torch", "onnxruntime", "sqlalchemy", "grpcio", "fastapi", "hypothesis")


@dataclass
class Tally:
    """Of one promise."""

    tests: int = 0
    tried: int = 0
    failed: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Collector:
    """A pytest plugin that adds up what tests report with `record_property`."""

    def __init__(self) -> None:
        self.by_file: dict[str, Tally] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tally = self.by_file.setdefault(report.nodeid.split("::")[0], Tally())
        tally.seconds += report.duration
        if report.failed:
            tally.failed += 1
            tally.failures.append(f"{report.nodeid} ({report.when})")
        if report.when == "call":
            counts = {name: value for name, value in report.user_properties if isinstance(value, int)}
            tally.tests += 1
            tally.tried += int(counts.pop("tried", 1))
            tally.counts.update({name: int(value) for name, value in counts.items()})


def main() -> int:
    parser = argparse.ArgumentParser(prog="make promises", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cycles", type=int, default=500, help="kills (default %(default)s)")
    parser.add_argument("--kill-within-s", type=float, default=math.inf, help="fewer kills, where they take longer")
    parser.add_argument("--examples", type=int, default=1000, help="generated inputs of each fuzz test")
    parser.add_argument("--sessions", type=int, default=10_000, help="that come and go while memory is measured")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="promises whose name this pattern finds")
    parser.add_argument("--add", action="store_true", help="count beside the rows that are there; of another seed")
    parser.add_argument("--out", type=Path, default=Path("out/promises.json"))
    options = parser.parse_args()
    os.environ["MIER_KILL_CYCLES"] = str(options.cycles)
    os.environ["MIER_KILL_WITHIN_S"] = str(options.kill_within_s)
    os.environ["MIER_MEMORY_SESSIONS"] = str(options.sessions)
    os.environ["MIER_PROMISES_SEED"] = str(options.seed)
    os.environ["MIER_PROMISES_LONG"] = "1"
    os.environ.setdefault("MIER_FUZZ_EXAMPLES", str(options.examples))
    chosen = {name: _files(patterns) for name, patterns in PROMISES.items() if re.search(options.only, name)}
    chosen = {name: files for name, files in chosen.items() if files}
    collector = Collector()
    run = {"command": _command(options), "seed": options.seed, "commit": _commit()}
    pytest.main(["-q", "-p", "no:cacheprovider", *itertools.chain(*chosen.values())], plugins=[collector])
    rows = [{**_row(name, files, collector), "runs": [run]} for name, files in chosen.items()]
    _show(rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"rows": _with_others(rows, options.out, options.add), **_circumstances()}
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(row["failed"] or not row["tried"] for row in rows) else 0


def _with_others(rows: list[dict[str, Any]], out: Path, add: bool) -> list[dict[str, Any]]:
    """In the order of `PROMISES`; what was not tried this time is as it was."""
    before = {row["promise"]: row for row in (json.loads(out.read_text())["rows"] if out.is_file() else [])}
    if add:
        rows = [_sum(before[row["promise"]], row) if row["promise"] in before else row for row in rows]
    found = before | {row["promise"]: row for row in rows}
    return [found[name] for name in PROMISES if name in found]


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two rows of a promise as one."""
    summed = {name: one[name] + other[name] for name in ("tried", "failed", "seconds", "failures", "runs")}
    counts = Counter(one["counts"]) + Counter(other["counts"])
    return {**other, **summed, "counts": dict(sorted(counts.items()))}


def _files(patterns: list[str]) -> list[str]:
    return sorted(str(path) for pattern in patterns for path in Path().glob(pattern))


def _row(name: str, files: list[str], collector: Collector) -> dict[str, Any]:
    tallies = [collector.by_file.get(file, Tally()) for file in files]
    counts: Counter[str] = sum((tally.counts for tally in tallies), Counter())
    return {
        "promise": name,
        "tests": [Path(file).name for file in files],
        "tried": sum(tally.tried for tally in tallies),
        "failed": sum(tally.failed for tally in tallies),
        "seconds": round(sum(tally.seconds for tally in tallies), 1),
        "counts": dict(sorted(counts.items())),
        "failures": [line for tally in tallies for line in tally.failures],
    }


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("promise", "test", "tried", "failed")
    for row in rows:
        table.add_row(row["promise"], " ".join(row["tests"]), str(row["tried"]), str(row["failed"]))
    Console(width=140).print(table)


def _command(options: argparse.Namespace) -> str:
    within = f" --kill-within-s {options.kill_within_s:g}" if options.kill_within_s < math.inf else ""
    only = f" --only '{options.only}'" if options.only else ""
    arguments = f"--cycles {options.cycles} --sessions {options.sessions} --seed {options.seed}{within}{only}"
    return f'MIER_FUZZ_EXAMPLES={os.environ["MIER_FUZZ_EXAMPLES"]} make promises PROMISES_ARGS="{arguments}"'


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()


def _circumstances() -> dict[str, Any]:
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "kernel": platform.release()},
    }


if __name__ == "__main__":
    sys.exit(main())
