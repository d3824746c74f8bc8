"""One core and one thread: what keeps two contenders on the same footing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def pinned(enabled: bool) -> Iterator[int | None]:
    """Keep this process on one core, torch on one thread; yields the core, None where it was not pinned."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    allowed = os.sched_getaffinity(0) if enabled and hasattr(os, "sched_setaffinity") else set()
    try:
        # The last: the kernel's own work prefers the first.
        core = max(allowed) if allowed else None
        if core is not None:
            os.sched_setaffinity(0, {core})
        yield core
    finally:
        torch.set_num_threads(threads)
        if allowed:
            os.sched_setaffinity(0, allowed)
