"""Acting step after step: one connection held open, the same deadlines and retries as any call."""

from __future__ import annotations

import numpy.typing as npt

from mier_client.arrays import floats
from mier_client.retry import Retrier
from mier_client.transport import ActQuery, ActStream
from mier_client.values import Acted


class Acting:
    """Many actions in a row; see `Client.open_act_stream`."""

    def __init__(self, stream: ActStream, retrier: Retrier, timeout_s: float) -> None:
        self._stream, self._retrier, self._timeout_s = stream, retrier, timeout_s

    def act(
        self,
        session_id: str,
        observation: npt.ArrayLike,
        *,
        deterministic: bool = False,
        episode: int | None = None,
        step: int | None = None,
        timeout_s: float | None = None,
    ) -> Acted:
        """As `Client.act`."""
        query, values = ActQuery(deterministic, episode, step), floats("observation", observation, 1)
        return self._retrier.call(
            lambda t: self._stream.act(session_id, values, query, t),
            self._timeout_s if timeout_s is None else timeout_s,
        )
