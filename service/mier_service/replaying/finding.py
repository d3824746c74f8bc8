"""What a replay found of one thing: transitions, a model context, a version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How it compares with what is stored."""

    EQUAL = "equal"
    """Bit for bit."""
    WITHIN_TOLERANCE = "within_tolerance"
    """Made with another build or kind of CPU, and as near as that allows."""
    DIFFERENT = "different"
    """Or what is stored is damaged."""
    NOT_REPLAYED = "not_replayed"
    """Something that it takes is missing."""


@dataclass(frozen=True)
class Finding:
    """Of one thing."""

    what: str
    """transitions, context or version"""
    which: str
    """Number, or place."""
    outcome: Outcome
    detail: str = ""

    def __str__(self) -> str:
        said = f"{self.what} {self.which}: {self.outcome.value.replace('_', ' ')}"
        return f"{said}: {self.detail}" if self.detail else said

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "which": self.which, "outcome": self.outcome.value, "detail": self.detail}


def exit_status(findings: Iterable[Finding]) -> int:
    """0: all is equal, or within tolerance; 1: something differs; 2: nothing differs, but something is missing."""
    outcomes = {finding.outcome for finding in findings}
    if Outcome.DIFFERENT in outcomes:
        return 1
    return 2 if Outcome.NOT_REPLAYED in outcomes else 0
