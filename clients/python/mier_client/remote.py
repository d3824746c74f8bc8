"""Acting by the service: a session's active policy version, step by step, over one stream."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy.typing as npt

from mier_client.client import Client
from mier_client.policy import Predicting
from mier_client.values import Acted, FloatArray


class RemotePolicy(Predicting):
    """A session's policy. For one thread at a time; the client stays the caller's."""

    def __init__(
        self,
        client: Client,
        session_id: str,
        *,
        explore: bool = False,
        episode: int = 0,
        timeout_s: float | None = None,
    ) -> None:
        """
        Args:
            client: what reaches the service.
            session_id: whose policy acts.
            explore: whether `act` explores; `predict` goes by its own argument.
            episode: number of the first episode, which exploration noise is a function of.
            timeout_s: deadline of an act; None: the client's own.
        """
        super().__init__(episode)
        self.session_id = session_id
        self.explore = explore
        self.acted: Acted | None = None
        """The newest action, with the version that chose it."""
        self._timeout_s = timeout_s
        self._open = ExitStack()
        self._acting = self._open.enter_context(client.open_act_stream())

    def act(self, observation: npt.ArrayLike) -> FloatArray:
        """observation [observation_dim] -> action [action_dim] in environment units; errors as of `Client.act`."""
        action = self.act_at(observation, self.episode, self.step, not self.explore)
        self.step += 1
        return action

    def act_at(self, observation: npt.ArrayLike, episode: int, step: int, deterministic: bool) -> FloatArray:
        """The action at that step of that episode, without counting it."""
        self.acted = self._acting.act(
            self.session_id,
            observation,
            deterministic=deterministic,
            episode=episode,
            step=step,
            timeout_s=self._timeout_s,
        )
        return self.acted.action

    def close(self) -> None:
        """Ends the stream."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
