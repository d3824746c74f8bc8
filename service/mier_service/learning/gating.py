"""A fine-tuned candidate is judged against what acts, before it may act itself."""

from __future__ import annotations

from mier.adaptation import InsufficientData
from mier.calibration import GateThresholds
from mier.checkpoint import Checkpoint
from mier.gate import Comparison, Verdict, compare
from mier.types import Transitions
from mier.weights import PolicyWeights
from mier_service.values import GateValue, Promotion

_PROMOTIONS = {
    Verdict.PROMOTE: Promotion.PROMOTED,
    Verdict.REJECT: Promotion.REJECTED,
    Verdict.INSUFFICIENT_DATA: Promotion.INSUFFICIENT_DATA,
}


def judge(
    checkpoint: Checkpoint,
    incumbent_version: int,
    incumbent: PolicyWeights,
    candidate: PolicyWeights,
    transitions: Transitions,
) -> tuple[Promotion, GateValue | None]:
    """The verdict, and what it rests on; ungated, and nothing, where the checkpoint was never calibrated."""
    if (thresholds := checkpoint.calibration.gate) is None:
        return Promotion.UNGATED, None
    try:
        found = compare(checkpoint, incumbent, candidate, transitions)
    except InsufficientData as error:
        return Promotion.INSUFFICIENT_DATA, GateValue(incumbent_version=incumbent_version, reason=str(error))
    verdict = found.verdict(thresholds)
    return _PROMOTIONS[verdict], GateValue(
        incumbent_version=incumbent_version,
        reason=_reason(verdict, found, thresholds),
        promote_above=thresholds.promote_above,
        reject_below=thresholds.reject_below,
        **found.to_json(),
    )


def _reason(verdict: Verdict, found: Comparison, thresholds: GateThresholds) -> str:
    seen = (
        f"imagined returns: {found.candidate_return:.1f}, {found.incumbent_return:.1f} of what acts; difference within "
        f"[{found.lowest_difference:.1f}, {found.highest_difference:.1f}]"
    )
    rule = {
        Verdict.PROMOTE: f"above {thresholds.promote_above:.1f}",
        Verdict.REJECT: f"below {thresholds.reject_below:.1f}",
        Verdict.INSUFFICIENT_DATA: (
            f"neither above {thresholds.promote_above:.1f} nor below {thresholds.reject_below:.1f}: "
            "more transitions may tell"
        ),
    }
    return f"{seen}, {rule[verdict]}"
