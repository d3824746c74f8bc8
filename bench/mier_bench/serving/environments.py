"""Peers that clash with the project have an environment of their own, made on demand by pip, in .bench/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parents[1] / "peers"
_FOLDER = Path(__file__).parents[3] / ".bench"


def python_of(peer: str) -> str:
    """The interpreter of that peer's environment, with what peers/<peer>.txt asks for; RuntimeError, with pip's own
    words, if it cannot be made."""
    folder, wanted = _FOLDER / peer, PEERS / f"{peer}.txt"
    python, made = folder / "bin" / "python", folder / "made.txt"
    if not made.exists() or made.read_text() != wanted.read_text():
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted))
        made.write_text(wanted.read_text())
    return str(python)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
