"""Immutable files named by the SHA-256 of their bytes: weights, their ONNX form, and resume saves.

Invariants
- A name is present only with its whole content: written to a temporary name, flushed to disk, renamed, and the
  folder flushed. So a row that names a hash can be committed once `put` has returned.
- `get` verifies the hash: what it returns is what was put, or it raises `DamagedFile`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path


class DamagedFile(Exception):
    """A file is missing, or its content is not what its name says."""


class ContentFiles:
    """The files of one kind, in one folder."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder = folder
        self._suffix = suffix
        make_folder(folder)

    def put(self, data: bytes) -> str:
        """Stores the bytes durably; their SHA-256 as 64 lower-case hex digits. OSError if the disk refuses."""
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        try:
            self.get(name)
        except DamagedFile:
            write_durably(path, data)
        else:
            # Whoever put it may have been killed, or not have come, to flush the folder after the rename.
            sync_folder(self._folder)
        return name

    def get(self, name: str) -> bytes:
        """The bytes whose SHA-256 is `name`."""
        try:
            data = self._path(name).read_bytes()
        except FileNotFoundError:
            raise DamagedFile(f"{self._suffix} file {name[:12]}... is missing") from None
        if hashlib.sha256(data).hexdigest() != name:
            raise DamagedFile(f"{self._suffix} file {name[:12]}... does not have the content that its name says")
        return data

    def remove(self, name: str) -> None:
        """Drops a file that no row names any more; no error if it is gone."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """All that are here."""
        return {path.name.removesuffix(f".{self._suffix}") for path in self._folder.glob(f"*.{self._suffix}")}

    def remove_leftovers(self) -> None:
        """Drops temporary files of writes that a crash cut off; only where no writer is at work."""
        for path in self._folder.glob("*.tmp"):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.{self._suffix}"


def write_durably(path: Path, data: bytes) -> None:
    """Replaces the file as one step that survives power loss."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Makes it, and those above it, as names that survive power loss; no error if it is there."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes names that came or went in it survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
