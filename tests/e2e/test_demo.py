"""The demo as a process: interrupted at its work, it leaves nothing running and nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import CHECKPOINTS


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    arguments = [
        "--task",
        "cheetah-vel-ood",
        "--targets",
        "1.5",
        "--updates",
        "100000",
        "--episodes",
        "1",
        "--workers",
        "1",
    ]
    demo = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mier_mujoco.demo",
            "--checkpoints",
            str(CHECKPOINTS),
            "--out",
            str(tmp_path),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    assert demo.stdout is not None
    shown = []
    for line in demo.stdout:
        shown.append(line)
        if "fine-tuning by relabelling" in line:
            break
    assert any("fine-tuning by relabelling" in line for line in shown), "".join(shown)
    assert _processes_naming(scratch), "a service is running"

    demo.send_signal(signal.SIGINT)
    rest = demo.stdout.read()
    assert demo.wait(60.0) == 130, "".join(shown) + rest
    demo.stdout.close()
    assert "everything it started is stopped" in rest
    assert _processes_naming(scratch) == []
    assert list(scratch.glob("mier-*")) == []


def _processes_naming(folder: Path) -> list[str]:
    """Command lines of processes that name a folder: the service has it as `--data`, workers in their settings."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in command:
            found.append(command)
    return found
