"""The tutorial 'your own environment', followed word for word: its files, its commands, its client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mier_mujoco.server_process import running_server

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "your-environment.md"
# The same run, too short to learn: the tutorial takes minutes, and its figures are its own.
SHORTER = {"epochs=40": "epochs=2", "model_steps=100": "model_steps=4", "updates=1000": "updates=20"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reader's folder, with the tutorial's files in it."""
    for name, code in re.findall(r'```python title="([^"]+)"\n(.*?)```', TUTORIAL.read_text(), re.DOTALL):
        (tmp_path / name).write_text(code)
    boat = tmp_path / "boat.py"
    code = boat.read_text()
    for long, short in SHORTER.items():
        assert long in code
        code = code.replace(long, short)
    boat.write_text(code)
    return tmp_path


def _run(folder: Path, command: str) -> str:
    """A command of the tutorial, in the reader's folder; what it printed."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MIER_RUNS": str(folder / "runs"),
        "PYTHONWARNINGS": "error",
        "COLUMNS": "200",
    }
    # torch warns of its own torch.jit.script; nothing of ours or the tutorial's may.
    environment["PYTHONWARNINGS"] += ",ignore::DeprecationWarning"
    done = subprocess.run(command.split(), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tutorial_leads_to_a_served_checkpoint(folder: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert [command.split()[0] for command in commands] == [*["mier-train"] * 3, "mier-serve", "python"]
    run, bundle, evaluate, serve, steer = commands
    for command in (run, bundle):
        _run(folder, command)
    assert "| buoy 1.5 m at 140 degrees | test |" in (folder / "checkpoints" / "boat" / "README.md").read_text()
    table = _run(folder, evaluate)
    assert "buoy 1.5 m at 140 degrees" in table
    arguments = serve.split()[1:]
    assert arguments == ["--checkpoints", "checkpoints", "--data", "data"]
    with running_server(["--checkpoints", str(folder / "checkpoints")], ready_within_s=120.0) as address:
        script = folder / "steer.py"
        code = script.read_text()
        assert "127.0.0.1:50051" in code
        script.write_text(code.replace("127.0.0.1:50051", address.grpc))
        printed = _run(folder, steer)
    found = re.findall(r"^(before|adapted|fine-tuned) (-?[\d.]+)", printed, re.MULTILINE)
    assert [name for name, _ in found] == ["before", "adapted", "fine-tuned"]
    assert all(-1000.0 < float(value) < 0.0 for _, value in found)
