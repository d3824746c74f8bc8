"""What a checkpoint knows of its own errors, measured in the simulator before it is served.

Kept in the manifest; a checkpoint without it is served all the same, ungated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from mier.ood import OodReference


@dataclass(frozen=True)
class GateThresholds:
    """Differences of imagined return, candidate less incumbent, that chance and the model's errors do not explain."""

    promote_above: float
    """At least 0. Of the calibration's candidates that were truly worse, at most 5% lie above it."""
    reject_below: float
    """At most 0. Of those that were truly better, at most 5% lie below it."""
    candidates: int
    """That it was measured on."""

    def __post_init__(self) -> None:
        if not self.reject_below <= 0.0 <= self.promote_above:
            raise ValueError(
                f"expected reject_below <= 0 <= promote_above, came {self.reject_below} and {self.promote_above}"
            )


@dataclass(frozen=True)
class Calibration:
    """All of it; None for what was not measured."""

    gate: GateThresholds | None = None
    ood: OodReference | None = None

    def to_json(self) -> dict[str, Any]:
        known: dict[str, Any] = {}
        if self.gate:
            known["gate"] = vars(self.gate)
        if self.ood:
            known["ood"] = self.ood.to_json()
        return known

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Raises: ValueError, TypeError, KeyError: what does not fit."""
        return cls(
            GateThresholds(**tree["gate"]) if "gate" in tree else None,
            OodReference.from_json(tree["ood"]) if "ood" in tree else None,
        )
