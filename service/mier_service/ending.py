"""The end of a process that has nothing left to do."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def end_now(status: int) -> NoReturn:
    """Ends at once. Taking down an interpreter that has loaded torch takes seconds on a busy machine, and by now
    everything is written and closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
