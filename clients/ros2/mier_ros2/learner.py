"""What the loop reports, submitted and learned from in a thread of its own, so that the loop never waits. No ROS."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue

from mier_client import Client, Conflict, DeadlineExceeded, Overloaded, Recorder, Step, Unavailable


class Learner:
    """Of one session. `add` and `end_episode` are for the loop's thread, `work` for the other one."""

    def __init__(
        self,
        client: Client,
        session_id: str,
        episode: int,
        adapt_every_episodes: int,
        say: Callable[[str], None],
    ) -> None:
        """`episode`: number of the first one; 0 for `adapt_every_episodes`: it does not adapt. `say` tells the user."""
        self._client, self._session_id = client, session_id
        self._recorder = Recorder(client, session_id, episode=episode)
        self._every, self._say = adapt_every_episodes, say
        self._news: SimpleQueue[Step | None] = SimpleQueue()
        self._adapted_before = episode

    def add(self, step: Step) -> None:
        self._news.put(step)

    def end_episode(self) -> None:
        """It ended without a mark in its last step."""
        self._news.put(None)

    def work(self) -> None:
        """All that was reported since. An outage is borne, as `Recorder` does."""
        while not isinstance(news := self._next(), bool):
            if news is None:
                self._recorder.end_episode()
            else:
                self._recorder.add(news)
        if self._every and self._recorder.episode - self._adapted_before >= self._every:
            self._adapt()

    def close(self) -> None:
        """Submits what is left; typed errors of the client where that is not possible."""
        self.work()
        self._recorder.submit()

    def _next(self) -> Step | bool | None:
        try:
            return self._news.get_nowait()
        except Empty:
            return False

    def _adapt(self) -> None:
        try:
            self._recorder.submit()
            found = self._client.adapt(self._session_id)
        except Conflict as error:  # too few transitions yet, or paused
            self._say(str(error))
        except (DeadlineExceeded, Overloaded, Unavailable) as error:
            self._say(f"will adapt later: {error}")
            return
        else:
            context = found.model_context
            self._say(f"context {context.number}: out-of-distribution score {context.ood_score}")
        self._adapted_before = self._recorder.episode
