"""A run's folder: its saves, its JSONL log, what made it. All file I/O of training is here.

<root>/<name>-seed<k>/state.safetensors   the newest complete save (replaced atomically)
                      curve.jsonl         one row an epoch; rows past the save are cut on resume
                      run.json            command, seed, versions, hardware
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mier.serialization import CorruptedData, pack, unpack

_VERSIONED = ("torch", "numpy", "gymnasium", "mujoco")


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @staticmethod
    def open(root: Path, name: str, seed: int) -> RunFolder:
        path = root / f"{name}-seed{seed}"
        path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path)

    @property
    def _state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def curve(self) -> Path:
        return self.path / "curve.jsonl"

    def load(self) -> dict[str, Any] | None:
        """The newest save, or None where there is none.

        Raises:
            CorruptedData: names the file and how to go on.
        """
        if not self._state.exists():
            return None
        try:
            state: dict[str, Any] = unpack(self._state.read_bytes())
        except CorruptedData as error:
            raise CorruptedData(f"{self._state}: {error}; restore it, or delete it to start the run anew") from error
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the save; a kill at any moment leaves the old or the new one whole."""
        write_atomically(self._state, pack(state))

    def log(self, row: dict[str, Any]) -> None:
        with self.curve.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        return read_jsonl(self.curve) if self.curve.exists() else []

    def cut_log(self, key: str, last: int) -> None:
        """Drop rows whose `key` is past `last`: their work was lost and will be done again."""
        kept = "".join(json.dumps(row) + "\n" for row in self.rows() if row[key] <= last)
        write_atomically(self.curve, kept.encode())

    def describe(self, seed: int, device: str = "cpu", precision: str = "fp32") -> dict[str, Any]:
        """Write and return what made this run."""
        described = provenance(seed) | {"device": device, "precision": precision}
        (self.path / "run.json").write_text(json.dumps(described, indent=1) + "\n")
        return described


def provenance(seed: int) -> dict[str, Any]:
    """Command, seed, versions, hardware: what a recorded figure must carry."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONED}},
        "hardware": hardware(),
    }


def hardware() -> str:
    """One line naming the CPU and its cores."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{os.cpu_count()} x {model}"


def write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(path.suffix + ".partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file; a last line cut short by a kill is left out.

    Raises:
        ValueError: another line is not JSON; names the file and the line.
    """
    rows = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: expected JSON, came {line[:40]!r}") from error
    return rows


def append_jsonl(path: Path, *rows: dict[str, Any]) -> None:
    """In one write; a last line that a kill cut short is taken away first, or the next row would join it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        held = file.read()
        if not held.endswith(b"\n"):
            file.truncate(held.rfind(b"\n") + 1)
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
