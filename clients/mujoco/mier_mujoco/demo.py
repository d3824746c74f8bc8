"""The demo: a service on the bundled checkpoints, and two acts, each with tables and a plot.

First, robots with tasks that nobody trained for, of both families; second, a robot whose joints flip in mid-run, and
candidates that a gate judges (`mier_mujoco.second_act`).

Starts everything it needs and leaves nothing running, also when it is interrupted or fails.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import tyro
from rich.console import Console

from mier_client import Client, MierError
from mier_mujoco import second_act_report
from mier_mujoco.__main__ import TIMEOUTS, run
from mier_mujoco.robot import EPISODES_PER_ROUND
from mier_mujoco.ruined import RUINOUS, bundled_checkpoints, with_ruined
from mier_mujoco.second_act import BEFORE, FAMILY, Moment, Robot, SecondAct
from mier_mujoco.server_process import Address, running_server
from mier_mujoco.settings import Settings
from mier_mujoco.simulator import simulator_warnings

_READY_WITHIN_S = 300.0
_CANDIDATE_UPDATES = 300
"""Of the second act, unless told: enough to be judged, and soon over."""
_SHOWN = {"cheetah-negated": "0+1+5,1+3+5,2+4+5"}


@dataclass(frozen=True)
class Demo:
    """Shows adaptation end to end: starts a service, evaluates against it, stops it."""

    acts: Literal["both", "first", "second"] = "both"
    """First: robots with tasks that nobody trained for. Second: joints flip in mid-run, candidates are judged. With
    --task of one family other than the negated joints the second is left out."""
    task: Literal["both", "cheetah-vel-ood", "cheetah-negated"] = "both"
    """Family of tasks, and the checkpoint of that name; or both, one after the other."""
    targets: str = ""
    """As for mier-eval, for one family. Empty: all target speeds, three of the negated joints."""
    updates: int | None = None
    """Fine-tune budget of each task in gradient updates. None: as each checkpoint's configuration says; of the second
    act 300."""
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
    """Folder that gets second_act.json and .png, and a folder of each family's name, for results.json and
    return_vs_target.png."""

    def __post_init__(self) -> None:
        if self.targets and self.task == "both":
            raise ValueError(f"--targets: expected --task with it, to say of which family {self.targets!r} are")

    def targets_of(self, family: str) -> str:
        return self.targets or _SHOWN.get(family, "")

    @property
    def shows_second(self) -> bool:
        return self.acts == "second" or (self.acts == "both" and self.task != "cheetah-vel-ood")

    def server(self, address: Address) -> str:
        return f"grpc://{address.grpc}" if self.transport == "grpc" else address.http


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
    with tempfile.TemporaryDirectory(prefix="mier-checkpoints-") as folder:
        served, ruined = demo.checkpoints or bundled_checkpoints(), ""
        if demo.shows_second:
            served, ruined = Path(folder), with_ruined(served, FAMILY, Path(folder))
        arguments = ["--finetune-workers", str(workers), "--checkpoints", str(served)]
        with running_server(arguments, ready_within_s=_READY_WITHIN_S) as address:
            console.print(f"service at {address.grpc} and {address.http}", highlight=False)
            if demo.acts != "second":
                _first_act(demo, console, address, workers)
            if demo.shows_second:
                _second_act(demo, console, address, ruined)
    console.print(f"done in {time.monotonic() - started:.0f} s; the service is stopped")


def _first_act(demo: Demo, console: Console, address: Address, workers: int) -> None:
    for family in ("cheetah-vel-ood", "cheetah-negated") if demo.task == "both" else (demo.task,):
        console.print(
            f"[bold]{family}[/bold]: {EPISODES_PER_ROUND} trajectories of real data per task, then a fine-tune "
            f"by relabelling; {demo.episodes} episodes per stage and task"
        )
        settings = Settings(
            task=family,
            targets=demo.targets_of(family),
            server=demo.server(address),
            transport=demo.transport,
            seed=demo.seed,
            episodes=demo.episodes,
            updates=demo.updates,
            parallel=workers + 1,
            out=demo.out / family,
        )
        run(settings, console)


def _second_act(demo: Demo, console: Console, address: Address, ruined: str) -> None:
    started = time.monotonic()
    with (
        Client.connect(demo.server(address), TIMEOUTS) as client,
        client.open_act_stream() as acting,
        simulator_warnings(console.print),
    ):
        robot = Robot(client, acting, demo.seed, demo.updates or _CANDIDATE_UPDATES)
        second_act_report.begin(console)
        moments = list[Moment]()

        def tell(now: Moment) -> None:
            moments.append(now)
            second_act_report.moment(console, now)

        returns = robot.follow(tell)
        before = next(now.version for now in reversed(moments) if now.joints == BEFORE)
        with console.status("candidates") as status:
            candidates = robot.judge(
                ruined, before, lambda name, done, total: status.update(f"candidate {name}: {done} of {total} updates")
            )
        session = robot.session
    found = SecondAct(tuple(moments), returns, candidates, session.id, session.checkpoint_hash)
    facts: dict[str, object] = {"seed": demo.seed, "ruinous_settings": RUINOUS}
    second_act_report.write(console, found, demo.out, facts | {"seconds": round(time.monotonic() - started, 1)})


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
