"""All tasks of an evaluation, several at a time, over one connection.

While the service fine-tunes for one task, the robots of others act. Breaking off (Ctrl-C, an error) deletes the
sessions that are open, which also cancels what the service computes for them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event

from mier_client import Client, MierError
from mier_envs.families import Task
from mier_mujoco.robot import OpenSessions, Plan, Progress, run_task
from mier_mujoco.rows import TaskResult
from mier_mujoco.settings import Settings

_TIDY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Unit:
    """One task with one seed: what runs by itself."""

    task: Task
    seed: int

    def label(self, settings: Settings) -> str:
        return f"{self.task.name} seed {self.seed}" if settings.repeats > 1 else self.task.name


def units(settings: Settings) -> tuple[Unit, ...]:
    """In the order in which they are started."""
    return tuple(Unit(task, seed) for seed in settings.seeds for task in settings.tasks())


def evaluate(client: Client, settings: Settings, progress: Callable[[Unit], Progress]) -> dict[Unit, TaskResult]:
    """Runs every unit; the first error ends the evaluation."""
    stop, sessions = Event(), OpenSessions()

    def run(unit: Unit) -> TaskResult:
        filmed = settings.video is not None
        plan = Plan(settings.checkpoint_name, unit.seed, settings.rounds, settings.episodes, settings.updates, filmed)
        return run_task(client, settings.family, unit.task, plan, progress(unit), stop, sessions)

    with ThreadPoolExecutor(settings.parallel, thread_name_prefix="robot") as pool:
        futures = {unit: pool.submit(run, unit) for unit in units(settings)}
        try:
            finished, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            _delete(client, sessions)
            raise
    return {unit: future.result() for unit, future in futures.items()}


def _delete(client: Client, sessions: OpenSessions) -> None:
    for session_id in sessions.all():
        try:
            client.delete_session(session_id, timeout_s=_TIDY_TIMEOUT_S)
        except MierError:
            # The error that broke the evaluation off is the one to show; a service that is gone keeps nothing running.
            continue
