"""Immutable files named by the SHA-256 of their bytes: weights, their ONNX form, and resume saves.

Invariants
- A name is present only with its whole content, and for good: see `places`. So a row that names a hash can be committed
  once `put` has returned.
- `get` verifies the hash: what it returns is what was put, or it raises `DamagedFile`.
"""

from __future__ import annotations

import hashlib

from mier_service.data.places import Place


class DamagedFile(Exception):
    """A file is missing, or its content is not what its name says."""


class ContentFiles:
    """The files of one kind, in one folder of a place. OSError where the storage fails."""

    def __init__(self, place: Place, folder: str, suffix: str) -> None:
        self._place = place
        self._folder = folder
        self._suffix = suffix
        place.prepare(folder)

    def put(self, data: bytes) -> str:
        """Stores the bytes durably; their SHA-256 as 64 lower-case hex digits."""
        name = hashlib.sha256(data).hexdigest()
        try:
            self.get(name)
        except DamagedFile:
            self._place.write(self._path(name), data)
        else:
            self._place.settle(self._path(name))
        return name

    def get(self, name: str) -> bytes:
        """The bytes whose SHA-256 is `name`."""
        try:
            data = self._place.read(self._path(name))
        except FileNotFoundError:
            raise DamagedFile(f"{self._suffix} file {name[:12]}... is missing") from None
        if hashlib.sha256(data).hexdigest() != name:
            raise DamagedFile(f"{self._suffix} file {name[:12]}... does not have the content that its name says")
        return data

    def remove(self, name: str) -> None:
        """Drops a file that no row names any more; no error if it is gone."""
        self._place.remove(self._path(name))

    def names(self) -> set[str]:
        """All that are here."""
        end = f".{self._suffix}"
        return {name.removesuffix(end) for name in self._place.names(self._folder) if name.endswith(end)}

    def remove_leftovers(self) -> None:
        """Drops temporary files of writes that a crash cut off; only where no writer is at work."""
        self._place.remove_leftovers(self._folder)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}.{self._suffix}"
