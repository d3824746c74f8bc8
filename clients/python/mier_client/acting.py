"""Acting step after step: one connection held open, the same deadlines and retries as any call."""

from __future__ import annotations

from mier_client.methods import Awaiting, Blocking, awaiting, blocking
from mier_client.surface import Surface


class Acting(Blocking):
    """Many actions in a row; see `Client.open_act_stream`."""

    act = blocking(Surface.act)


class AsyncActing(Awaiting):
    """The same, awaited."""

    act = awaiting(Surface.act)
