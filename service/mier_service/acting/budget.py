"""The time that a caller gives an answer. Instants are of `time.monotonic`, which the core is given."""

from __future__ import annotations

from typing import NamedTuple

from mier_service.errors import invalid

MAX_BUDGET_MS = 60_000.0
_KEPT_BACK_S = 0.005
_SHARE_KEPT_BACK = 0.25


class Budget(NamedTuple):
    """Counted from the receipt of the request."""

    deadline_s: float
    """The answer must have been sent by then."""
    answer_by_s: float
    """Nothing is waited for any longer: what is left is for choosing another answer and sending it."""

    @staticmethod
    def until(deadline_s: float, received_s: float, most_kept_back_s: float = _KEPT_BACK_S) -> Budget:
        kept_back_s = _SHARE_KEPT_BACK * (deadline_s - received_s)
        if kept_back_s > most_kept_back_s:
            kept_back_s = most_kept_back_s
        return Budget(deadline_s, deadline_s - kept_back_s if kept_back_s > 0.0 else deadline_s)

    @staticmethod
    def of(received_s: float, budget_ms: float) -> Budget:
        """ServiceError where that is no budget."""
        if not 0.0 < budget_ms <= MAX_BUDGET_MS:
            raise invalid("budget_ms", f"expected 0 < budget_ms <= {MAX_BUDGET_MS:g}, got {budget_ms:g}")
        return Budget.until(received_s + budget_ms / 1000.0, received_s)
