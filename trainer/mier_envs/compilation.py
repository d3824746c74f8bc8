"""Compiling Gymnasium's half_cheetah.xml without its deprecation notice.

The file sets `settotalmass`; MuJoCo says on every load that the attribute will go, on stderr and in a MUJOCO_LOG.TXT in
the working directory. Users can do nothing about it, and the ways around it change the model (without the attribute
`stat.meaninertia` differs, by which the solver scales its tolerance). Any other warning is passed on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco


@contextmanager
def expecting_settotalmass() -> Iterator[None]:
    """Within, MuJoCo's warnings are held back; at the end they are issued as Python warnings, save the expected one."""
    held: list[str] = []
    previous = mujoco.get_mju_user_warning()
    # The handler only takes notes: an exception in it (a warning turned into an error) would abort the process.
    mujoco.set_mju_user_warning(held.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
    for message in held:
        if "settotalmass" not in message:
            warnings.warn(message, RuntimeWarning, stacklevel=3)
