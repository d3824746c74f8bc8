"""What an evaluation runs: the command line of `mier-eval`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mier_envs.cheetah_families import vel_task
from mier_envs.families import FAMILIES, Family, Task

_DEFAULT_PORTS = {"grpc": 50051, "http": 8080}


@dataclass(frozen=True)
class Settings:
    """Evaluates a checkpoint's out-of-distribution tasks against a running service, as a robot would."""

    task: str = "cheetah-vel-ood"
    """Family of tasks: cheetah-vel-ood or cheetah-negated."""
    targets: str = ""
    """Which tasks, separated by commas: speeds (1.5,2.0) or negated joints (0+1+5,2+3+5). Empty: all test tasks."""
    checkpoint: str = ""
    """Checkpoint on the service. Empty: the one named like the family."""
    server: str = "127.0.0.1"
    """Host, host:port, or URL of the service. Without a port: 50051 (grpc), 8080 (http)."""
    transport: Literal["grpc", "http"] = "grpc"
    """How to talk to it. A URL's own scheme has precedence."""
    rounds: int = 1
    """Rounds of acting 2 more episodes, adapting, fine-tuning."""
    seed: int = 0
    """Seed of exploration, of the environments' starts and of fine-tuning."""
    repeats: int = 1
    """Whole runs, with seeds `seed`, `seed + 1`, ..."""
    episodes: int = 5
    """Deterministic episodes that evaluate each stage, from the same starting states at every stage."""
    updates: int | None = None
    """Budget of each fine-tune in gradient updates. None: as the checkpoint's configuration says."""
    parallel: int = 3
    """Tasks under way at once: while the service fine-tunes for one, the others act."""
    out: Path = Path("out/eval")
    """Folder for results.json, summary.json and the plot."""
    oracle: Path | None = None
    """JSONL of the oracle's returns. None: the bundled one."""
    json: bool = False
    """Print the rows as JSON on standard output, in place of the table."""

    def __post_init__(self) -> None:
        if self.task not in FAMILIES:
            raise ValueError(f"--task: expected one of {', '.join(FAMILIES)}, got {self.task!r}")
        for name in ("rounds", "repeats", "episodes", "parallel"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(self, name)}")
        if self.updates is not None and self.updates < 1:
            raise ValueError(f"--updates: expected at least 1, got {self.updates}")
        if self.seed < 0:
            raise ValueError(f"--seed: expected at least 0, got {self.seed}")
        self.tasks()

    @property
    def family(self) -> Family:
        return FAMILIES[self.task]

    @property
    def checkpoint_name(self) -> str:
        return self.checkpoint or self.task

    @property
    def trained_speeds(self) -> tuple[float, float] | None:
        """Range of the target speeds that checkpoints of the family are trained for; None if tasks have no speed."""
        speeds = [task.target for task in self.family.train_tasks(0) if task.target is not None]
        return (min(speeds), max(speeds)) if speeds else None

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.repeats)

    @property
    def url(self) -> str:
        """The service's URL, complete."""
        if "://" in self.server:
            return self.server
        if urlsplit(f"//{self.server}").port is not None:
            return f"{self.transport}://{self.server}"
        return f"{self.transport}://{self.server}:{_DEFAULT_PORTS[self.transport]}"

    def tasks(self) -> tuple[Task, ...]:
        """The chosen tasks, in the order asked for."""
        if not self.targets:
            return self.family.test_tasks
        return tuple(_task(self.family, word.strip()) for word in self.targets.split(","))


def _task(family: Family, word: str) -> Task:
    """A test task by its name or the last word of it; families with target speeds take any speed."""
    for task in family.test_tasks:
        if word in (task.name, task.name.split()[-1]):
            return task
    if family.test_tasks[0].target is not None:
        try:
            speed = float(word)
        except ValueError:
            raise ValueError(f"--targets: expected speeds in m/s such as 1.5,2.0, got {word!r}") from None
        return next((t for t in family.test_tasks if t.target == speed), vel_task(speed))
    known = ", ".join(task.name.split()[-1] for task in family.test_tasks)
    raise ValueError(f"--targets: expected some of {known}, got {word!r}")
