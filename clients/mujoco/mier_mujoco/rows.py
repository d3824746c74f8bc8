"""What an evaluation found: one row per task and seed, as it stands in results.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mier_mujoco.film import Footage


@dataclass(frozen=True)
class Stage:
    """Deterministic episodes with one policy version."""

    policy_version: int
    returns: tuple[float, ...]
    """Episode returns, in the order of the shared starting states."""

    @property
    def mean(self) -> float:
        return sum(self.returns) / len(self.returns)


@dataclass(frozen=True)
class Round:
    """Two trajectories more, an adaptation, a fine-tune, and what it then returned."""

    collected_returns: tuple[float, ...]
    """Returns of the exploring episodes that were submitted."""
    transitions_used: int
    heldout_nll_before: float | None
    heldout_nll_after: float | None
    ood_score: float | None
    adapt_ms: float
    finetune_updates: int
    finetune_seconds: float
    """From asking for the fine-tune to its end, waiting in the service's queue included."""
    promotion: str
    """How the service's gate judged it; what acted before goes on acting unless it was promoted, or not gated."""
    gate: str | None
    """What that verdict rests on."""
    finetuned: Stage


@dataclass(frozen=True)
class TaskResult:
    """One task, one seed."""

    unadapted: Stage
    context_adapted: Stage
    rounds: tuple[Round, ...]
    checkpoint_hash: str
    act_seconds: tuple[float, ...] = field(repr=False)
    """Of every act, asking to having."""
    footage: Footage | None = field(default=None, repr=False)
    """Before and after, if it was filmed."""

    @property
    def finetuned(self) -> Stage:
        return self.rounds[-1].finetuned


def normalised_gain(adapted: float, unadapted: float, oracle: float | None) -> float | None:
    """(adapted - unadapted) / (oracle - unadapted): 0 is nothing gained, 1 is the oracle's return."""
    if oracle is None or oracle <= unadapted:
        return None
    return (adapted - unadapted) / (oracle - unadapted)


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """The value below which `share` of the samples lie (nearest rank), in milliseconds."""
    ordered = sorted(seconds)
    return 1000.0 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
