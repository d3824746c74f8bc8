"""A Gymnasium environment that teaches: its transitions are recorded and submitted, and the session learns from them.

    env = AdaptiveEnv(env, "grpc://127.0.0.1:50051", "cheetah-vel-ood")     # 1
    policy = env.policy                                                     # 2

The loop itself stays as it is: `policy.act(observation)`, or `policy.predict(observation)` as of Stable-Baselines3, or
a policy of the caller's own. Needs Gymnasium (extra `gym`).

Invariants
- A step is recorded with the version that chose its action; with 0 if the action is not the one that `policy` gave for
  the observation before it.
- Submitting and adapting happen where an episode ends, never between two steps of one (but for a batch that is full).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, SupportsFloat, TypeVar

import numpy as np
import numpy.typing as npt

from mier_client.client import Client
from mier_client.errors import Conflict, DeadlineExceeded, Overloaded, Unavailable
from mier_client.recorder import Recorder, Step
from mier_client.remote import RemotePolicy
from mier_client.values import Adapted, EnvironmentSpec, FloatArray, Operation, Session

try:
    import gymnasium
except ImportError as error:
    raise ImportError("AdaptiveEnv needs Gymnasium: pip install 'mier[gym]'") from error

Observation = TypeVar("Observation")
Action = TypeVar("Action")


@dataclass(frozen=True)
class Learning:
    """When the session learns from what was recorded."""

    adapt_every_episodes: int | None = 1
    """None: never; the caller does it."""
    finetune_every_episodes: int | None = None
    """A fine-tune is begun in the background after so many episodes, unless one is under way. None: never."""


class AdaptiveEnv(gymnasium.Wrapper[Observation, Action, Observation, Action]):
    """Wraps any environment with flat box spaces."""

    def __init__(
        self,
        env: gymnasium.Env[Observation, Action],
        service: str | Client,
        checkpoint: str | None = None,
        *,
        session_id: str | None = None,
        first_episode: int = 0,
        seed: int = 0,
        explore: bool = True,
        learning: Learning = Learning(),
    ) -> None:
        """
        Args:
            env: what is acted in. Its spaces have the dimensions and the action bounds of the checkpoint's environment.
            service: its URL, or a client, which then stays the caller's.
            checkpoint: what a session is opened on, unless `session_id` names one that there is.
            session_id: an own one; with it, `first_episode` is a number that it does not have yet.
            seed: of the exploration noise of a session that is opened.
            explore: whether `policy.act` explores, as the first trajectories of a task should.
            learning: when the session adapts.

        Raises:
            ValueError: neither checkpoint nor session, or both; or the spaces do not fit.
        """
        super().__init__(env)
        if (checkpoint is None) == (session_id is None):
            raise ValueError("expected a checkpoint to open a session on, or session_id, and not both")
        self._owns_client = isinstance(service, str)
        self.client = Client.connect(service) if isinstance(service, str) else service
        self.session = self._session(checkpoint, session_id, seed)
        self.policy = RemotePolicy(self.client, self.session.id, explore=explore, episode=first_episode)
        self.adapted: Adapted | None = None
        """What the newest adaptation found."""
        self.operation: Operation | None = None
        """The newest fine-tune that was begun."""
        self.refused: Conflict | None = None
        """Why the session did not learn after the newest episode: too little data, or it is paused. None: it did."""
        self._recorder = Recorder(self.client, self.session.id, episode=first_episode)
        self._learning = learning
        self._episodes = 0
        self._observation: FloatArray | None = None

    @property
    def pending_steps(self) -> int:
        """Steps that the service has not acknowledged yet."""
        return self._recorder.pending_steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """As the environment's own. An episode that was broken off ends here, and is submitted."""
        self._recorder.end_episode()
        self.policy.episode, self.policy.step = self._recorder.episode, 0
        observation, info = super().reset(seed=seed, options=options)
        self._observation = _row(observation)
        return observation, info

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's own; the step is recorded, and where it ends the episode, the session learns."""
        if self._observation is None:
            raise gymnasium.error.ResetNeeded("expected reset before the first step")
        following, reward, terminated, truncated, info = super().step(action)
        next_observation, taken = _row(following), _row(action)
        step = Step(
            self._observation,
            taken,
            float(reward),
            next_observation,
            bool(terminated),
            bool(truncated),
            self._chosen_by(taken),
        )
        self._observation = next_observation
        self._recorder.add(step)
        if terminated or truncated:
            self._learn()
        return following, reward, terminated, truncated, info

    def close(self) -> None:
        """Submits what is left. The session stays, for the next time."""
        try:
            self._recorder.end_episode()
            self._recorder.submit()
        finally:
            self.policy.close()
            if self._owns_client:
                self.client.close()
            super().close()

    def _chosen_by(self, action: FloatArray) -> int:
        acted = self.policy.acted
        return acted.policy_version if acted is not None and np.array_equal(acted.action, action) else 0

    def _learn(self) -> None:
        self._episodes += 1
        self.refused = None
        if self._recorder.pending_steps:
            return  # the service is away; what it does not know it cannot learn from
        try:
            if _due(self._learning.adapt_every_episodes, self._episodes):
                self.adapted = self.client.adapt(self.session.id)
            if _due(self._learning.finetune_every_episodes, self._episodes):
                self.operation = self.client.finetune(self.session.id)
        except Conflict as conflict:
            self.refused = conflict
        except (DeadlineExceeded, Overloaded, Unavailable):
            """It learns after the next episode, from this one too."""

    def _session(self, checkpoint: str | None, session_id: str | None, seed: int) -> Session:
        if session_id is not None:
            session = self.client.get_session(session_id)
        else:
            session = self.client.create_session(str(checkpoint), seed=seed)
        try:
            _check_spaces(self.env, session.environment)
        except ValueError:
            if session_id is None:
                self.client.delete_session(session.id)
            if self._owns_client:
                self.client.close()
            raise
        return session


def _check_spaces(env: gymnasium.Env[Any, Any], spec: EnvironmentSpec) -> None:
    seen, acted = env.observation_space, env.action_space
    if not (isinstance(seen, gymnasium.spaces.Box) and isinstance(acted, gymnasium.spaces.Box)):
        raise ValueError(f"expected Box spaces, came {seen} and {acted}: wrap the environment")
    if seen.shape != (spec.observation_dim,) or acted.shape != (spec.action_dim,):
        raise ValueError(
            f"expected observations [{spec.observation_dim}] and actions [{spec.action_dim}], as the checkpoint's "
            f"environment {spec.id} has them, came {list(seen.shape)} and {list(acted.shape)}"
        )
    if not (np.allclose(acted.low, spec.action_low) and np.allclose(acted.high, spec.action_high)):
        raise ValueError(
            f"expected actions from {list(spec.action_low)} to {list(spec.action_high)}, as the checkpoint's "
            f"environment {spec.id} has them, came {acted.low.tolist()} to {acted.high.tolist()}: use "
            "gymnasium.wrappers.RescaleAction"
        )


def _due(every: int | None, episodes: int) -> bool:
    return every is not None and episodes % every == 0


def _row(values: object) -> FloatArray:
    row: npt.NDArray[np.float32] = np.array(values, np.float32)
    return row
