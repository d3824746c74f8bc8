"""The demo's second act: a cheetah whose joints flip in mid-run, and candidates that a gate judges.

    follow   the robot only acts and submits; nobody tells the service that the joints flipped
    judge    three candidates, each fine-tuned and judged against what acts:
             by the book; with settings that ruin it; and where what acted before the flip was put back by mistake

Each candidate's true return is measured as well, in the simulator; on a robot nobody would act with a refused one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from mier_client import Acting, Client, Gate, PolicyVersion, Session, SessionMode
from mier_client.recorder import Recorder, Step
from mier_envs.cheetah_families import negated_task
from mier_envs.families import FAMILIES
from mier_envs.switching import take_over
from mier_mujoco.episodes import Chosen, FloatArray, Purpose, run_episode, starting_seed
from mier_mujoco.robot import expected_environment

FAMILY = "cheetah-negated"
BEFORE, AFTER = (0, 1, 2), (0, 1, 5)
"""Joints that answer the wrong way round: a combination of training, and one with a joint that never did there."""
EPISODES = 6
FLIP = (2, 100)
"""Episode and step."""
SUBMIT_EVERY_STEPS = 10
SHOWN_EVERY_STEPS = 50
_CAUGHT_UP_WITHIN_S = 4.0
"""For so long the simulation stands still after a submission, until the context has followed it: a slow machine then
shows the same as a fast one. A suspicion that more transitions must settle is not waited for."""
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Moment:
    """Some steps of the run, and how the service saw them at their end."""

    episode: int
    step: int
    """The last of them."""
    joints: tuple[int, ...]
    """Those that answer the wrong way round."""
    reward: float
    """Mean of these steps."""
    ood_percentile: float | None
    context_moved: float
    """Euclidean distance from the context at the moment before."""
    task_number: int
    version: int


@dataclass(frozen=True)
class Candidate:
    """A fine-tuned version and what the gate made of it."""

    name: str
    version: int
    verdict: str
    gate: Gate | None
    incumbent_return: float
    """True return of what acted when it was judged."""
    candidate_return: float
    """True return of the candidate."""
    acts: int
    """The version that acts after the verdict."""
    acting_return: float


@dataclass(frozen=True)
class SecondAct:
    """All of it."""

    moments: tuple[Moment, ...]
    returns: tuple[float, ...]
    """Of each episode, exploring."""
    candidates: tuple[Candidate, ...]
    session: str
    checkpoint_hash: str


class Robot:
    """Lives through it, telling as it goes."""

    def __init__(self, client: Client, acting: Acting, seed: int, updates: int) -> None:
        self._client, self._acting = client, acting
        self._seed, self._updates = seed, updates
        self._family = FAMILIES[FAMILY]
        expected = expected_environment(self._family)
        self._session = client.create_session(FAMILY, seed=seed, expected_environment=expected)

    @property
    def session(self) -> Session:
        return self._client.get_session(self._session.id)

    def follow(self, tell: Callable[[Moment], None]) -> tuple[float, ...]:
        """Acts and submits through the flip; the returns."""
        self._client.set_mode(self._session.id, SessionMode.CONTEXT)
        recorder = Recorder(self._client, self._session.id, submit_every_steps=SUBMIT_EVERY_STEPS)
        environment, joints = self._family.make(negated_task(BEFORE)), BEFORE
        returns, context = [], np.zeros_like(self._session.model_context.values)
        for episode in range(EPISODES):
            observation, _ = environment.reset(seed=starting_seed(self._seed, Purpose.COLLECT, episode))
            rewards, over = list[float](), False
            while not over:
                if (episode, len(rewards)) == FLIP:
                    environment, joints = take_over(environment, self._family.make(negated_task(AFTER))), AFTER
                acted = self._acting.act(self._session.id, observation, episode=episode, step=len(rewards))
                action = np.asarray(acted.action)
                following, reward, terminated, truncated, _ = environment.step(action)
                step = Step(observation, action, float(reward), following, terminated, truncated, acted.policy_version)
                recorder.add(step)
                if not recorder.pending_steps:
                    self._wait_for_context()
                rewards.append(float(reward))
                observation, over = following, bool(terminated or truncated)
                if over or len(rewards) % SHOWN_EVERY_STEPS == 0:
                    now = self.session
                    moved = float(np.linalg.norm(now.model_context.values - context))
                    context = now.model_context.values
                    mean = float(np.mean(rewards[-SHOWN_EVERY_STEPS:]))
                    percentile = now.model_context.ood_percentile
                    version, task = acted.policy_version, now.task_number
                    tell(Moment(episode, len(rewards), joints, mean, percentile, moved, task, version))
            returns.append(sum(rewards))
        environment.close()
        self._client.set_mode(self._session.id, SessionMode.OFF)
        return tuple(returns)

    def _wait_for_context(self) -> None:
        until_s = time.monotonic() + _CAUGHT_UP_WITHIN_S
        while time.monotonic() < until_s:
            now = self.session
            if now.model_context.transitions_used >= now.transitions_count - now.task_start:
                return
            time.sleep(_LOOK_EVERY_S)

    def judge(self, ruined: str, before_the_flip: int, tell: Callable[[str, int, int], None]) -> tuple[Candidate, ...]:
        """The three candidates; `before_the_flip` is the version that acted then."""
        by_the_book = self._candidate("by the book", tell)
        self._client.move(self._session.id, ruined, reason="demo: fine-tune with settings that ruin")
        broken = self._candidate("broken: learning rate x 300", tell)
        self._client.roll_back(self._session.id, reason="demo: back from the ruinous settings")
        self._client.promote(self._session.id, before_the_flip, reason="demo: a mistake by hand")
        return by_the_book, broken, self._candidate("after a mistake by hand", tell)

    def _candidate(self, name: str, tell: Callable[[str, int, int], None]) -> Candidate:
        incumbent = self._true_return()
        operation = self._client.finetune(self._session.id, updates=self._updates, seed=self._seed)
        for seen in self._client.watch_operation(operation.id):
            tell(name, seen.updates_done, seen.updates_total)
        done = self._client.wait_operation(operation.id)
        made = self._version(done.result_version)
        acts = self.session.active_version
        if acts == made.number:
            acting = candidate = self._true_return()
        else:
            acting = self._true_return()
            self._client.promote(self._session.id, made.number, reason="demo: to see what it would have done")
            candidate = self._true_return()
            self._client.roll_back(self._session.id, reason="demo: seen")
        return Candidate(
            name, made.number, made.promotion.value, made.gate, incumbent, candidate, acts, acting
        )  # fmt: skip

    def _version(self, number: int | None) -> PolicyVersion:
        return next(version for version in self._client.list_versions(self._session.id) if version.number == number)

    def _true_return(self) -> float:
        """Of one deterministic episode with what acts, always from the same state, on the joints after the flip."""
        environment: gymnasium.Env[Any, Any] = self._family.make(negated_task(AFTER))
        episode = run_episode(
            environment,
            self._act,
            environment_seed=starting_seed(self._seed, Purpose.EVALUATE, 0),
            episode=0,
            deterministic=True,
            on_step=lambda: None,
        )
        environment.close()
        return episode.episode_return

    def _act(self, observation: FloatArray, episode: int, step: int, deterministic: bool) -> Chosen:
        acted = self._acting.act(self._session.id, observation, deterministic=deterministic, episode=episode, step=step)
        return Chosen(np.asarray(acted.action), acted.policy_version)
