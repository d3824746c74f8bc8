"""One robot's day with a task nobody trained for: act, report, adapt, fine-tune, act again.

Stages (each evaluated on deterministic episodes from the same starting states):
    unadapted         version 1, the checkpoint's prior context
    context_adapted   after `adapt` on the 2 exploring episodes of the first round
    finetuned         after each round's fine-tune
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Protocol

import numpy as np

from mier_client import (
    Acting,
    Adapted,
    Client,
    EnvironmentSpec,
    HealthyRange,
    Operation,
    OperationState,
    PolicyVersion,
    Session,
    Varies,
)
from mier_envs.families import Family, Task
from mier_mujoco.episodes import Chosen, Episode, FloatArray, Purpose, run_episode, starting_seed
from mier_mujoco.film import Camera, Film, Footage
from mier_mujoco.rows import Round, Stage, TaskResult

EPISODES_PER_ROUND = 2
"""Real trajectories that each round is allowed (the paper's test time)."""


class Stopped(Exception):
    """The evaluation was told to stop."""


class Progress(Protocol):
    """What a robot tells while it works."""

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` parts begins."""

    def advance(self, parts: int) -> None:
        """So many parts of it are done now, counted from its begin."""

    def learned(self, what: str, value: str) -> None:
        """A fact for who watches, in place of an earlier one of that name."""


@dataclass(frozen=True)
class Plan:
    """How each task is run."""

    checkpoint: str
    seed: int
    rounds: int
    episodes: int
    updates: int | None
    film: bool = False
    """Whether the first episode of each evaluation is taken down."""


@dataclass
class OpenSessions:
    """Ids of the sessions that robots have open: what is left to tidy up when an evaluation breaks off."""

    ids: set[str] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def add(self, session_id: str) -> None:
        with self.lock:
            self.ids.add(session_id)

    def discard(self, session_id: str) -> None:
        with self.lock:
            self.ids.discard(session_id)

    def all(self) -> tuple[str, ...]:
        with self.lock:
            return tuple(self.ids)


def run_task(
    client: Client, family: Family, task: Task, plan: Plan, progress: Progress, stop: Event, sessions: OpenSessions
) -> TaskResult:
    """Runs the whole programme on a session of its own, which is deleted at the end."""
    session = client.create_session(plan.checkpoint, seed=plan.seed, expected_environment=expected_environment(family))
    sessions.add(session.id)
    try:
        with client.open_act_stream() as acting:
            return _Robot(client, acting, family, task, plan, progress, stop, session).run()
    finally:
        if not stop.is_set():
            client.delete_session(session.id)
            sessions.discard(session.id)


def expected_environment(family: Family) -> EnvironmentSpec:
    """The robot's own environment, as the contract names it: a checkpoint for another one is refused."""
    spec = family.spec_json()
    return EnvironmentSpec(
        id=spec["id"],
        observation_names=tuple(spec["observation_names"]),
        action_names=tuple(spec["action_names"]),
        action_low=tuple(spec["action_low"]),
        action_high=tuple(spec["action_high"]),
        dt_s=spec["dt_s"],
        horizon_steps=spec["horizon_steps"],
        varies=Varies(spec["varies"]),
        healthy_ranges=tuple(HealthyRange(r["index"], r["low"], r["high"]) for r in spec["healthy_ranges"]),
    )


class _Robot:
    def __init__(
        self,
        client: Client,
        acting: Acting,
        family: Family,
        task: Task,
        plan: Plan,
        progress: Progress,
        stop: Event,
        session: Session,
    ) -> None:
        self._client, self._plan, self._progress, self._stop = client, plan, progress, stop
        self._session, self._acting = session, acting
        self._environment = family.make(task)
        self._collected = 0
        self._act_s: list[float] = []
        self._task = task
        self._films: dict[str, Film] = {}

    def run(self) -> TaskResult:
        try:
            unadapted = self._evaluate("unadapted")
            rounds: list[Round] = []
            context_adapted: Stage | None = None
            for number in range(1, self._plan.rounds + 1):
                label = f"round {number}: " if self._plan.rounds > 1 else ""
                returns, adapted = self._collect(label)
                if context_adapted is None:
                    context_adapted = self._evaluate("context-adapted")
                made, seconds = self._finetune(label)
                version = self._version(made.result_version)
                self._progress.learned("gate", version.promotion.value.replace("_", " "))
                found = adapted.model_context
                rounds.append(
                    Round(
                        collected_returns=returns,
                        transitions_used=found.transitions_used,
                        heldout_nll_before=found.heldout_nll_before,
                        heldout_nll_after=found.heldout_nll_after,
                        ood_score=found.ood_score,
                        adapt_ms=adapted.elapsed_ms,
                        finetune_updates=made.updates_done,
                        finetune_seconds=seconds,
                        promotion=version.promotion.value,
                        gate=version.gate.reason if version.gate else None,
                        finetuned=self._evaluate(f"{label}fine-tuned"),
                    )
                )
            assert context_adapted is not None, "a plan has at least one round"
            return TaskResult(
                unadapted,
                context_adapted,
                tuple(rounds),
                self._session.checkpoint_hash,
                tuple(self._act_s),
                self._footage(),
            )
        finally:
            self._environment.close()

    def _footage(self) -> Footage | None:
        if not self._films:
            return None
        (_, before), *_, (name, after) = self._films.items()
        return Footage(self._task, before, after, name)

    def _collect(self, label: str) -> tuple[tuple[float, ...], Adapted]:
        """Two exploring episodes, each submitted and adapted to as it ends: the second is acted with what the first
        taught. Their returns, and what adaptation found in the end."""
        horizon = self._session.environment.horizon_steps
        returns, found = [], None
        for number in range(1, EPISODES_PER_ROUND + 1):
            self._progress.phase(f"{label}exploring, trajectory {number}", horizon)
            episode = self._episode(Purpose.COLLECT, self._collected, self._collected, 0)
            self._client.submit_transitions(
                self._session.id,
                episode=self._collected,
                first_step=0,
                observation=episode.observation,
                action=episode.action,
                reward=episode.reward,
                next_observation=episode.next_observation,
                terminated=episode.terminated,
                truncated=episode.truncated,
                policy_version=episode.policy_version,
            )
            self._collected += 1
            returns.append(episode.episode_return)
            found = self._client.adapt(self._session.id)
            context = found.model_context
            strange = context.ood_score if context.ood_percentile is None else context.ood_percentile
            self._progress.learned("OOD", "–" if strange is None else f"{strange:.1f}")
        assert found is not None, "a round has at least one episode"
        return tuple(returns), found

    def _evaluate(self, stage: str) -> Stage:
        horizon = self._session.environment.horizon_steps
        self._progress.phase(f"evaluating {stage}", self._plan.episodes * horizon)
        returns: list[float] = []
        done, versions = 0, set[int]()
        for index in range(self._plan.episodes):
            camera = Camera(self._environment) if self._plan.film and index == 0 else None
            episode = self._episode(Purpose.EVALUATE, index, index, done, camera)
            if camera is not None:
                self._films[stage] = camera.film(episode.policy_version[0])
            returns.append(episode.episode_return)
            versions.update(episode.policy_version)
            done += len(episode.reward)
            self._progress.learned(stage.rpartition(": ")[2], f"{sum(returns) / len(returns):.1f}")
        if len(versions) != 1:
            raise RuntimeError(f"stage {stage}: expected one policy version throughout, got {sorted(versions)}")
        return Stage(versions.pop(), tuple(returns))

    def _finetune(self, label: str) -> tuple[Operation, float]:
        """Fine-tunes in the background and waits; how it ended, and the seconds it took."""
        started = time.monotonic()
        operation = self._client.finetune(self._session.id, updates=self._plan.updates, seed=self._plan.seed)
        self._progress.phase(f"{label}fine-tuning (waiting for a worker)", 1)
        total = 0
        for state in self._client.watch_operation(operation.id):
            self._check_stop()
            if state.state is not OperationState.QUEUED and state.updates_total != total:
                total = state.updates_total
                self._progress.phase(f"{label}fine-tuning by relabelling", total)
            self._progress.advance(state.updates_done)
        finished = self._client.wait_operation(operation.id)
        return finished, time.monotonic() - started

    def _version(self, number: int | None) -> PolicyVersion:
        return next(version for version in self._client.list_versions(self._session.id) if version.number == number)

    def _episode(self, purpose: Purpose, index: int, episode: int, done: int, camera: Camera | None = None) -> Episode:
        def on_step() -> None:
            nonlocal done
            if camera is not None:
                camera.shoot()
            done += 1
            self._progress.advance(done)
            self._check_stop()

        result = run_episode(
            self._environment,
            self._act,
            environment_seed=starting_seed(self._plan.seed, purpose, index),
            episode=episode,
            deterministic=purpose is Purpose.EVALUATE,
            on_step=on_step,
        )
        self._act_s.extend(result.act_s)
        return result

    def _act(self, observation: FloatArray, episode: int, step: int, deterministic: bool) -> Chosen:
        acted = self._acting.act(self._session.id, observation, deterministic=deterministic, episode=episode, step=step)
        return Chosen(np.asarray(acted.action), acted.policy_version)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped
