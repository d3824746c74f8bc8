"""The time that a gRPC caller gives an answer: what the request says, and the deadline of the call itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from mier_proto.v1 import adaptation_pb2 as pb
from mier_service.access.turns import waited_s
from mier_service.acting.budget import Budget
from mier_service.grpc.answers import Rpc
from mier_service.watching.loop_watch import LoopWatch

_WAY_BACK_S = 0.1
"""Most that is kept back of a call's own deadline: by then the answer must be with the caller, not only on its way."""


class Budgets:
    """Belongs to the event loop."""

    def __init__(self, watch: LoopWatch, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._watch = watch
        self._monotonic = monotonic

    def own(self, rpc: Rpc) -> Budget | None:
        """That of the call itself, until its deadline; None: it has none."""
        left_s = rpc.time_remaining()
        if left_s is None:
            return None
        now_s = self._monotonic()
        return Budget.until(now_s + left_s, now_s, _WAY_BACK_S)

    def of(self, request: pb.ActRequest, own: Budget | None) -> Budget | None:
        """That of a request that has just come; the earlier one, since after the call's own deadline nobody hears the
        answer."""
        if not request.HasField("budget_ms"):
            return own
        self._watch.want()
        given = Budget.of(self._watch.received_s() - waited_s(), request.budget_ms)
        return given if own is None else min(given, own)
