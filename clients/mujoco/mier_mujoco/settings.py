"""What an evaluation runs: the command line of `mier-eval`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mier_client import Tls
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
    api_key_file: Path | None = None
    """File whose content is the key, of scope admin (sessions are deleted at the end). None: MIER_API_KEY, if set. The
    key itself is no argument: arguments can be read by others, and are kept with the results."""
    tls_ca: Path | None = None
    """PEM authority of the service's certificate. With it, --tls-cert, or a URL of grpcs or https, TLS is used."""
    tls_cert: Path | None = None
    """PEM certificate of one's own, if the service asks for one; with --tls-key."""
    tls_key: Path | None = None
    """PEM private key of that certificate."""
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
    video: Path | None = None
    """Film of before and after, side by side, as .mp4 or .gif: each stage's first episode. Where there are several
    tasks or seeds, a film each, with its name before the suffix. Drawn without a window, by EGL or OSMesa."""
    watch: bool = False
    """In a terminal: a table that follows each task, with its returns so far, how unlike the training tasks it is, and
    what the gate said."""
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
        if self.video is not None and self.video.suffix not in (".mp4", ".gif"):
            raise ValueError(f"--video: expected a file that ends in .mp4 or .gif, got {self.video}")
        if self.seed < 0:
            raise ValueError(f"--seed: expected at least 0, got {self.seed}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key: expected both or neither, got one alone")
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
        scheme = f"{self.transport}s" if self.tls is not None else self.transport
        if urlsplit(f"//{self.server}").port is not None:
            return f"{scheme}://{self.server}"
        return f"{scheme}://{self.server}:{_DEFAULT_PORTS[self.transport]}"

    @property
    def tls(self) -> Tls | None:
        """None unless a file of it is given."""
        if self.tls_ca is None and self.tls_cert is None:
            return None
        return Tls(self.tls_ca, self.tls_cert, self.tls_key)

    def api_key(self) -> str | None:
        """The content of the file; ValueError if it cannot be read."""
        if self.api_key_file is None:
            return None
        try:
            return self.api_key_file.read_text().strip()
        except OSError as error:
            raise ValueError(f"--api-key-file: {self.api_key_file} cannot be read: {error.strerror}") from None

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
