"""What the templates are given: the values of use cases, arranged as a person looks at them. No I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mier.ood import OUT_OF_DISTRIBUTION
from mier_service.access.keys import Scope
from mier_service.sessions.history import HistoryValue
from mier_service.ui import charts, lanes
from mier_service.values import (
    ModelContextValue,
    OperationState,
    OperationValue,
    SessionPage,
    SessionState,
    SessionValue,
    VersionValue,
)
from mier_service.watching.monitor import Check
from mier_service.watching.traffic import Interval


@dataclass(frozen=True)
class Login:
    """Who looks, and what their forms carry."""

    key_id: str
    """Empty where nobody is asked for a key."""
    scope: Scope
    form_token: str

    @property
    def may_adapt(self) -> bool:
        return self.scope.includes(Scope.ADAPT)

    @property
    def may_decide(self) -> bool:
        return self.scope.includes(Scope.ADMIN)


@dataclass(frozen=True)
class Mark:
    """A word with a colour: good, busy, warn, bad or plain."""

    text: str
    kind: str


def marks(session: SessionValue, operation: OperationValue | None) -> list[Mark]:
    """The session's state at a glance."""
    found = [Mark("paused", "warn") if session.state is SessionState.PAUSED else Mark("learning", "good")]
    if operation is not None and not operation.state.final:
        running = operation.state is OperationState.RUNNING
        found = [*found, Mark("fine-tuning" if running else "fine-tune waits", "busy")]
    if session.pinned:
        found.append(Mark("pinned", "warn"))
    if session.mode.value != "off":
        found.append(Mark(f"adapts by itself: {session.mode.value}", "plain"))
    return found


def strange(context: ModelContextValue) -> Mark:
    """How unlike the training tasks this one is."""
    if context.ood_percentile is not None:
        out = context.ood_percentile >= OUT_OF_DISTRIBUTION
        return Mark("out of distribution" if out else "within distribution", "warn" if out else "good")
    return Mark("not compared" if context.ood_score is not None else "not adapted yet", "plain")


@dataclass(frozen=True)
class SessionRow:
    """One line of the overview."""

    session: SessionValue
    marks: list[Mark]
    strange: Mark
    operation: OperationValue | None


@dataclass(frozen=True)
class Overview:
    """The first page."""

    status: str
    checks: Sequence[Check]
    intervals: Sequence[Interval]
    under_way: float
    rows: list[SessionRow]
    next_page_token: str
    finetunes_running: int | None
    """None: the caller may not see operations."""
    finetunes_waiting: int | None

    @property
    def now(self) -> Interval | None:
        return self.intervals[-1] if self.intervals else None

    @property
    def throughput(self) -> charts.Chart:
        return charts.throughput(self.intervals)

    @property
    def latency(self) -> charts.Chart:
        return charts.latency(self.intervals)


def overview(
    status: str,
    checks: Sequence[Check],
    intervals: Sequence[Interval],
    under_way: float,
    page: SessionPage,
    unfinished: list[OperationValue] | None,
) -> Overview:
    of_session = {operation.session_id: operation for operation in reversed(unfinished or [])}
    return Overview(
        status=status,
        checks=checks,
        intervals=intervals,
        under_way=under_way,
        rows=[
            SessionRow(s, marks(s, of_session.get(s.id)), strange(s.model_context), of_session.get(s.id))
            for s in page.sessions
        ],
        next_page_token=page.next_page_token,
        finetunes_running=_count(unfinished, OperationState.RUNNING),
        finetunes_waiting=_count(unfinished, OperationState.QUEUED),
    )


def _count(operations: list[OperationValue] | None, state: OperationState) -> int | None:
    return None if operations is None else sum(operation.state is state for operation in operations)


@dataclass(frozen=True)
class Bar:
    """One entry of a context, as a bar from the middle; lengths in percent of half the width."""

    value: float
    length: float


@dataclass(frozen=True)
class VersionRow:
    """One version of the lineage."""

    version: VersionValue
    rail: lanes.Row
    active: bool
    colour: int
    evidence: Evidence | None


@dataclass(frozen=True)
class Evidence:
    """The gate's interval on a scale of 0 to 100, with what it is compared to."""

    low: float
    high: float
    zero: float
    promote_above: float
    reject_below: float


@dataclass(frozen=True)
class SessionView:
    """The page of one session."""

    history: HistoryValue
    marks: list[Mark]
    strange: Mark
    operation: OperationValue | None
    """The newest."""
    lineage: list[VersionRow]
    rail_px: int
    bars: list[Bar]

    @property
    def session(self) -> SessionValue:
        return self.history.session

    @property
    def strangeness(self) -> charts.Chart:
        return charts.strangeness(self.history.contexts)

    @property
    def returns(self) -> charts.Chart:
        return charts.returns(self.history.returns)

    @property
    def since(self) -> datetime:
        """When the active version began to act."""
        swaps = [p for p in self.history.promotions if p.from_version != p.to_version]
        return swaps[0].create_time if swaps else self.session.create_time


def session_view(history: HistoryValue) -> SessionView:
    session = history.session
    operation = history.operations[0] if history.operations else None
    rails = lanes.rows(history.versions)
    values = session.model_context.values
    largest = max((abs(value) for value in values), default=0.0) or 1.0
    return SessionView(
        history=history,
        marks=marks(session, operation),
        strange=strange(session.model_context),
        operation=operation,
        lineage=[
            VersionRow(v, rails[v.number], v.number == session.active_version, v.number % charts.COLOURS, evidence(v))
            for v in history.versions
        ],
        rail_px=lanes.width_px(rails),
        bars=[Bar(value, 100.0 * abs(value) / largest) for value in values],
    )


def evidence(version: VersionValue) -> Evidence | None:
    """None where the gate had nothing to compare."""
    gate = version.gate
    if gate is None:
        return None
    ends = (gate.lowest_difference, gate.highest_difference, gate.promote_above, gate.reject_below)
    if any(end is None for end in ends):
        return None
    numbers = [end for end in ends if end is not None]
    low, high = min(*numbers, 0.0), max(*numbers, 0.0)
    margin = 0.08 * (high - low or 1.0)

    def at(value: float) -> float:
        return 100.0 * (value - low + margin) / (high - low + 2 * margin)

    lowest, highest, above, below = map(at, numbers)
    return Evidence(lowest, highest, at(0.0), above, below)
