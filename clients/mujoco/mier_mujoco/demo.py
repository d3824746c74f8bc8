"""The demo: a service on the bundled checkpoint, robots with tasks that nobody trained for, a table and a plot.

Starts everything it needs and leaves nothing running, also when it is interrupted or fails.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import tyro
from rich.console import Console

from mier_client import MierError
from mier_mujoco.__main__ import run
from mier_mujoco.robot import EPISODES_PER_ROUND
from mier_mujoco.server_process import running_server
from mier_mujoco.settings import Settings

_READY_WITHIN_S = 90.0
_SHOWN = {"cheetah-negated": "0+1+5,1+3+5,2+4+5"}


@dataclass(frozen=True)
class Demo:
    """Shows adaptation end to end: starts a service, evaluates against it, stops it."""

    task: Literal["both", "cheetah-vel-ood", "cheetah-negated"] = "both"
    """Family of tasks, and the checkpoint of that name; or both, one after the other."""
    targets: str = ""
    """As for mier-eval, for one family. Empty: all target speeds, three of the negated joints."""
    updates: int | None = None
    """Fine-tune budget of each task in gradient updates. None: as each checkpoint's configuration says."""
    episodes: int = 4
    """Deterministic episodes that evaluate each stage."""
    seed: int = 0
    """Of everything random."""
    transport: Literal["grpc", "http"] = "grpc"
    """How the robots talk to the service."""
    checkpoints: Path | None = None
    """Folder of checkpoints. None: the bundled ones."""
    workers: int = 0
    """Processes of the service that fine-tune. 0: one per core, at most 4."""
    out: Path = Path("out/demo")
    """Folder that gets one of each family's name, for results.json and return_vs_target.png."""

    def __post_init__(self) -> None:
        if self.targets and self.task == "both":
            raise ValueError(f"--targets: expected --task with it, to say of which family {self.targets!r} are")

    def targets_of(self, family: str) -> str:
        return self.targets or _SHOWN.get(family, "")


def main() -> None:
    """The command line."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = Console()
    try:
        demo = tyro.cli(Demo, prog="mier_mujoco.demo", description=Demo.__doc__)
        _show(demo, console)
    except (ValueError, RuntimeError, MierError) as error:
        console.print(f"demo: {error}", style="red", highlight=False, markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("demo: interrupted; everything it started is stopped")
        sys.exit(130)


def _show(demo: Demo, console: Console) -> None:
    started = time.monotonic()
    workers = demo.workers or min(os.cpu_count() or 1, 4)
    arguments = ["--finetune-workers", str(workers)]
    if demo.checkpoints is not None:
        arguments += ["--checkpoints", str(demo.checkpoints)]
    with running_server(arguments, ready_within_s=_READY_WITHIN_S) as address:
        console.print(f"service at {address.grpc} and {address.http}", highlight=False)
        for family in ("cheetah-vel-ood", "cheetah-negated") if demo.task == "both" else (demo.task,):
            console.print(
                f"[bold]{family}[/bold]: {EPISODES_PER_ROUND} trajectories of real data per task, then a fine-tune "
                f"by relabelling; {demo.episodes} episodes per stage and task"
            )
            settings = Settings(
                task=family,
                targets=demo.targets_of(family),
                server=address.grpc if demo.transport == "grpc" else address.http,
                transport=demo.transport,
                seed=demo.seed,
                episodes=demo.episodes,
                updates=demo.updates,
                parallel=workers + 1,
                out=demo.out / family,
            )
            run(settings, console)
    console.print(f"done in {time.monotonic() - started:.0f} s; the service is stopped")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
