"""The last good bundle on the robot's disk, so that it acts after a reboot without network.

    FOLDER/bundle            the signed manifest, without graphs: replaced as one step that survives power loss
    FOLDER/<sha256>.onnx     the graphs that it names; written before it, removed after it

So a new context costs a small file. What is read is checked like what comes by the network: signature, session, hashes.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mier_client.edge.bundles import BundleReader
from mier_proto.bundles import Unpacked

_BUNDLE = "bundle"


class BundleCache:
    """One robot's folder."""

    def __init__(self, folder: Path, reader: BundleReader) -> None:
        """OSError if the folder cannot be made."""
        self._folder, self._reader = folder, reader
        folder.mkdir(parents=True, exist_ok=True)
        self._sound: set[str] = set()
        """Graphs whose files were found good, or written, by this process."""

    def load(self) -> Unpacked | None:
        """The last good bundle; None where there is none. BundleRefused: it is damaged, or signed by another key."""
        path = self._folder / _BUNDLE
        if not path.is_file():
            return None
        bundle = self._reader.read(path.read_bytes(), self._graph)
        self._sound.update(bundle.graphs)
        return bundle

    def save(self, bundle: Unpacked) -> None:
        """Durably, in the place of the one before. OSError if the disk refuses: then that one stays."""
        for name, graph in bundle.graphs.items():
            if name not in self._sound:
                self._write(f"{name}.onnx", graph)
                self._sound.add(name)
        self._write(_BUNDLE, bundle.without_graphs())
        for path in self._folder.glob("*.onnx"):
            if path.stem not in bundle.graphs:
                self._sound.discard(path.stem)
                path.unlink(missing_ok=True)

    def _graph(self, name: str) -> bytes | None:
        path = self._folder / f"{name}.onnx"
        return path.read_bytes() if path.is_file() else None

    def _write(self, name: str, data: bytes) -> None:
        temporary = self._folder / f"{name}.{secrets.token_hex(4)}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # elsewhere folders cannot be flushed
            descriptor = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
