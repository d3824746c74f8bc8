"""Environments for the robots, and what the simulator has to say while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mujoco

_KNOWN = "compiler attribute 'settotalmass' is deprecated"
"""About Gymnasium's own model of the cheetah; nothing that a user could act on."""


@contextmanager
def simulator_warnings(tell: Callable[[str], None]) -> Iterator[None]:
    """Hands MuJoCo's warnings to `tell`, in place of standard error and a log file in the working directory."""

    def receive(message: str) -> None:
        if _KNOWN not in message:
            tell(message.strip())

    mujoco.set_mju_user_warning(receive)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)
