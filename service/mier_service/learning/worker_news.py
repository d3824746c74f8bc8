"""What a worker tells its service, one line of JSON each on its standard output: for the metrics alone.

Nothing depends on it arriving. What a fine-tune made is in the store, and a worker whose service is gone goes on
without being heard.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from mier_service.values import OperationState, Promotion

_MARK = "mier_news"
"""Libraries may print lines of their own."""


@dataclass(frozen=True)
class Progress:
    """A fine-tune made so many more updates."""

    updates: int


@dataclass(frozen=True)
class Ended:
    """A fine-tune is final."""

    state: OperationState
    seconds: float
    """Since it was asked for."""
    promotion: Promotion | None
    """The gate's verdict on its version; None without one."""


News = Progress | Ended


def tell(news: News) -> None:
    """Lost if nobody listens."""
    if isinstance(news, Progress):
        said: dict[str, object] = {_MARK: "progress", "updates": news.updates}
    else:
        said = {_MARK: "ended", "state": news.state, "seconds": news.seconds, "promotion": news.promotion}
    with contextlib.suppress(OSError):
        print(json.dumps(said), flush=True)


def understood(line: str) -> News | None:
    """None if the line is no news."""
    if _MARK not in line:
        return None
    try:
        said = json.loads(line)
        if said[_MARK] == "progress":
            return Progress(int(said["updates"]))
        promotion = None if said["promotion"] is None else Promotion(said["promotion"])
        return Ended(OperationState(said["state"]), float(said["seconds"]), promotion)
    except (ValueError, KeyError, TypeError):
        return None
