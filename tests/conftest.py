"""What the fuzz tests tried is counted, and printed at the end of a run; interrupts reach what tests start."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.fuzzing import EXAMPLES, Tried
from tests.postgres import Postgres, running


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """A suite that a shell started in the background ignores SIGINT, and so would every process that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What tests marked `anyio` run on: the event loop that gRPC knows."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the whole run; each test makes a store of its own."""
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    """Every test that takes it runs on both: on the file in its data folder (None), and on PostgreSQL."""
    if request.param == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_store()


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Iterator[Tried]:
    """Counts inputs; the count goes to the report of the test as the property `tried`."""
    counter = Tried()
    yield counter
    record_property("tried", counter.count)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            # The count is in the report of a test's end; what failed is reported once more, without it.
            for name, value in getattr(report, "user_properties", ()):
                if name == "tried" and report.when == "teardown":
                    found[report.nodeid.partition("[")[0]] += value
    if found:
        form = f"{EXAMPLES} examples each" if EXAMPLES else "short form"
        terminalreporter.section(f"inputs tried ({form})")
        for name, count in sorted(found.items()):
            terminalreporter.write_line(f"{count:8d}  {name}")
