"""Names of runs and families on the command line: the study's own, or 'module:name' for one's own.

As in Gymnasium's 'module:Environment-v0', the module is imported first; it registers its families and runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TypeVar

from mier_envs.families import FAMILIES, Family
from mier_trainer.runs import RUNS, PearlRun, Run

Known = TypeVar("Known")


class UnknownName(ValueError):
    """No run or family has that name."""


def find_run(name: str) -> Run | PearlRun:
    """A run by its name.

    Raises:
        UnknownName: names those that there are.
    """
    return _find("run", name, RUNS)


def find_family(name: str) -> Family:
    """A family by its name.

    Raises:
        UnknownName: names those that there are.
    """
    return _find("family", name, FAMILIES)


def _find(what: str, name: str, known: Mapping[str, Known]) -> Known:
    module, _, short = name.rpartition(":")
    if module:
        # A module beside the caller, as `python -m` would find it.
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module.partition(".")[0]:
                raise
            raise UnknownName(
                f"{what} '{name}': no module '{module}' in the working directory or among what is installed"
            ) from error
    if short not in known:
        raise UnknownName(
            f"unknown {what} '{short}'; expected one of {', '.join(known)}, or module:name for one of your own"
        )
    return known[short]
