#!/usr/bin/env python3
"""Runs the steps of the Dockerfile in a clean directory, for machines where no image can be built.

    scripts/docker_steps.py [--keep] [--build-arg NAME=VALUE ...]

It reads the Dockerfile itself, so it cannot drift from it: COPY takes the committed files that .dockerignore lets
through, RUN runs in a shell with the stage's ENV and ARG, absolute paths of the image lie under the clean directory.
Then it starts CMD, waits until HEALTHCHECK's command succeeds, stops it with STOPSIGNAL, and checks that it ended well.

What stays unchecked: the base image (this machine's python3 stands in), `useradd` and USER (run by root, the service
runs as `nobody` instead), and the isolation of the network (so the bind to all interfaces is turned back to loopback).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
HEALTHY_WITHIN_S = 120.0
STOP_WITHIN_S = 30.0
NOBODY = 65534


@dataclass
class Image:
    """A directory that stands for the image's root, with what the instructions so far have set."""

    root: Path
    build_args: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    health: str = ""
    command: str = ""
    stop: signal.Signals = signal.SIGTERM

    def expand(self, text: str) -> str:
        return Template(text).safe_substitute(self.environment)

    def place(self, path: str) -> Path:
        """Where a path of the image lies here."""
        return self.root / self.expand(path).lstrip("/")

    def shell(self) -> dict[str, str]:
        """The environment of a command: the image's variables, with its absolute paths moved under the root."""
        moved = {
            name: str(self.place(value)) if value.startswith("/") else value for name, value in self.environment.items()
        }
        return {**os.environ, **moved}


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) in order; comments gone, continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def run(image: Image, instruction: str, rest: str) -> None:
    """One instruction."""
    match instruction:
        case "FROM":
            # A new stage keeps nothing but what it copies from the one before, which lies here already.
            image.environment, image.workdir = {}, "/"
        case "ARG":
            name, _, default = rest.partition("=")
            image.environment[name] = image.build_args.get(name, default)
        case "ENV":
            name, _, value = rest.partition("=")
            image.environment[name] = image.expand(value)
        case "WORKDIR":
            image.workdir = rest
            image.place(rest).mkdir(parents=True, exist_ok=True)
        case "COPY" if not rest.startswith("--from="):
            _copy(image, rest.split()[:-1])
        case "RUN" if rest.startswith("useradd "):
            image.place(image.environment["MIER_DATA"]).mkdir(parents=True, exist_ok=True)
        case "RUN":
            subprocess.run(["/bin/sh", "-c", rest], check=True, cwd=image.place(image.workdir), env=image.shell())
        case "HEALTHCHECK":
            image.health = rest.partition("CMD ")[2]
        case "STOPSIGNAL":
            image.stop = signal.Signals[rest]
        case "CMD":
            image.command = rest
        case "COPY" | "USER" | "VOLUME" | "EXPOSE":
            pass
        case _:
            raise SystemExit(f"docker_steps: the Dockerfile has an instruction that is not known here: {instruction}")


def _copy(image: Image, sources: list[str]) -> None:
    """Committed files only, as from a fresh clone."""
    wanted = ["git", "archive", "HEAD", *_let_through(sources)]
    archive = subprocess.run(wanted, check=True, capture_output=True, cwd=REPOSITORY).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(image.place(image.workdir), filter="data")


def _let_through(sources: list[str]) -> list[str]:
    allowed = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    if sources == ["."]:
        return allowed
    if refused := [name for name in sources if name not in allowed]:
        raise SystemExit(f"docker_steps: .dockerignore keeps {', '.join(refused)} out, and the Dockerfile copies it")
    return sources


def serve(image: Image) -> None:
    """CMD until HEALTHCHECK succeeds, then STOPSIGNAL; SystemExit if it does not go well."""
    command = image.command.replace("--host 0.0.0.0 --insecure-public-bind", "--host 127.0.0.1")
    data = image.place(image.environment["MIER_DATA"])
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        image.root.chmod(0o755)
        # An interpreter under a private home (pyenv's under /root) is one that nobody may not run.
        python = Path(image.place(image.environment["MIER_HOME"]), "venv/bin/python").resolve()
        probe = ["/bin/sh", "-c", f"test -x '{python}'"]
        if subprocess.run(probe, check=False, user=user, group=user).returncode != 0:
            print(f"USER not checked: {python} is not open to others; the service runs as the caller", flush=True)
            user = None
    if user is not None:
        shutil.chown(data, user, user)
    how: dict[str, Any] = {"cwd": data, "env": image.shell() | {"HOME": str(data)}, "user": user, "group": user}
    print(f"CMD {command}", flush=True)
    service = subprocess.Popen(["/bin/sh", "-c", command], start_new_session=True, **how)
    try:
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        check = ["/bin/sh", "-c", image.health]
        while subprocess.run(check, stderr=subprocess.DEVNULL, check=False, **how).returncode != 0:
            if service.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"docker_steps: not healthy (exit status {service.returncode})")
            time.sleep(0.5)
        print("HEALTHCHECK: healthy", flush=True)
        service.send_signal(image.stop)
        if (status := service.wait(STOP_WITHIN_S)) != 0:
            raise SystemExit(f"docker_steps: after {image.stop.name} the service ended with status {status}")
        print(f"{image.stop.name}: ended with status 0", flush=True)
    finally:
        if service.poll() is None:
            os.killpg(service.pid, signal.SIGKILL)
            service.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the directory in place")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="mier-image-"))
    image = Image(root, dict(argument.split("=", 1) for argument in given.build_arg))
    try:
        for instruction, rest in instructions((REPOSITORY / "Dockerfile").read_text()):
            print(f"{instruction} {rest}", flush=True)
            run(image, instruction, rest)
        serve(image)
    except subprocess.CalledProcessError as error:
        sys.exit(f"docker_steps: a step failed: {error}")
    finally:
        if given.keep:
            print(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
