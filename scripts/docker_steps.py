#!/usr/bin/env python3
"""Runs the steps of the Dockerfile in a clean directory, for machines where no image can be built.

    scripts/docker_steps.py [--keep] [--build-arg NAME=VALUE ...]

It reads the Dockerfile itself, so it cannot drift from it: COPY takes the committed files that .dockerignore lets
through, RUN runs in a shell with the stage's ENV and ARG, absolute paths of the image lie under the clean directory.
Then it starts ENTRYPOINT, waits until HEALTHCHECK's command succeeds, stops it with STOPSIGNAL, and checks that it
ended well. Run by root, it does so as `nobody` and with every file system read-only but the data folder.

What stays unchecked: the base image (this machine's python3 stands in), `useradd` and USER (hence `nobody`), and the
isolation of the network (so the bind to all interfaces is turned back to loopback).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
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
HEALTHY_WITHIN_S = 600.0
STOP_WITHIN_S = 30.0
NOBODY = 65534


@dataclass
class Image:
    """A directory that stands for the image's root, with what the instructions so far have set."""

    root: Path
    build_args: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    health: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
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
        # The image's own folders of programs come first; what lies behind them in the base image is this machine's.
        path = self.environment.get("PATH", "").removesuffix("$PATH")
        moved["PATH"] = os.pathsep.join(
            [*(str(self.place(entry)) for entry in path.split(":") if entry), os.environ["PATH"]]
        )
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
        case "RUN" if "useradd " in rest:
            image.place(image.environment["MIER_DATA"]).mkdir(parents=True, exist_ok=True)
        case "RUN":
            subprocess.run(["/bin/sh", "-c", rest], check=True, cwd=image.place(image.workdir), env=image.shell())
        case "HEALTHCHECK":
            image.health = tuple(json.loads(rest.partition("CMD ")[2]))
        case "STOPSIGNAL":
            image.stop = signal.Signals[rest]
        case "ENTRYPOINT":
            image.command = tuple(json.loads(rest))
        case "COPY" | "USER" | "VOLUME" | "EXPOSE" | "LABEL":
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
    """ENTRYPOINT until HEALTHCHECK succeeds, then STOPSIGNAL; SystemExit if it does not go well."""
    data = image.place(image.environment["MIER_DATA"])
    bind = {"MIER_HOST": "127.0.0.1", "MIER_INSECURE_PUBLIC_BIND": "false"}
    how: dict[str, Any] = {"cwd": data, "env": image.shell() | {"HOME": str(data)} | bind}
    command = [*_confinement(image, data), *image.command]
    print(f"ENTRYPOINT {shlex.join(image.command)}", flush=True)
    service = subprocess.Popen(command, start_new_session=True, **how)
    try:
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while subprocess.run(image.health, stdout=subprocess.DEVNULL, check=False, **how).returncode != 0:
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


def _confinement(image: Image, data: Path) -> list[str]:
    """What a command is to begin with so that it runs as `nobody` and can write to the data folder only; says what this
    machine does not allow."""
    if os.geteuid() != 0:
        print("USER and a read-only root not checked: that takes root", flush=True)
        return []
    image.root.chmod(0o755)
    shutil.chown(data, NOBODY, NOBODY)
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    # An interpreter under a private home (pyenv's under /root) is one that nobody may not run.
    python = Path(image.place(image.environment["MIER_HOME"]), "venv/bin/python").resolve()
    if subprocess.run([*user, "test", "-x", str(python)], check=False).returncode != 0:
        print(f"USER not checked: {python} is not open to others; the service runs as the caller", flush=True)
        user = []
    # Every mounted file system but the kernel's own; the data folder is a mount of its own before that, and stays.
    kernel = "noproc,nosysfs,nocgroup,nocgroup2,nodevtmpfs,nodevpts"
    script = f"""
        mount --bind "$0" "$0" || exit 1
        findmnt --raw --noheadings --output TARGET --types {kernel} | while read -r at; do
            test "$at" = "$0" || mount -o remount,bind,ro "$at" || exit 1
        done && ! touch /tmp/written 2>/dev/null && cd "$0" && exec "$@"
    """
    read_only = ["unshare", "--mount", "sh", "-c", script, str(data)]
    if subprocess.run([*read_only, "true"], check=False).returncode != 0:
        print("a read-only root not checked: this machine does not allow a mount namespace", flush=True)
        read_only = []
    return read_only + user


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
