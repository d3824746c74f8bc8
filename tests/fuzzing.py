"""How much is fuzzed: a short form for every day, the long form where MIER_FUZZ_EXAMPLES says how many examples.

The short form draws the same examples each time, so that it fails for a reason or not at all. The long form draws new
ones each time; when one fails, hypothesis prints the line that repeats it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings

EXAMPLES = int(os.environ.get("MIER_FUZZ_EXAMPLES", "0"))
"""Of each fuzz test in the long form; 0: the short form."""


def fuzz(short: int) -> settings:
    """Settings of one fuzz test that tries `short` examples every day."""
    return settings(
        max_examples=EXAMPLES or short,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        # A failure is reported as it was found, or shrunk; explaining it would take as long again.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class Tried:
    """How many inputs a test has tried."""

    count: int = 0

    def __call__(self, more: int = 1) -> None:
        self.count += more
