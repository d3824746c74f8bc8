"""What SIGKILL cannot show: that a write is on the disk, and not in the machine's memory, when it is acknowledged.

A power cut is not tried. What it rests on is: SQLite's settings, read back from the connections that the service uses,
and the order of fsync and rename for files, seen as the calls are made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import text

from mier_service.data.durable import write_durably
from mier_service.data.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(tmp_path / "data", connections=3, clock=lambda: 0.0)
    made.prepare()
    return made


def test_every_connection_flushes_each_commit(storage: Storage) -> None:
    """Broken on purpose: with synchronous=NORMAL, which in WAL mode flushes at checkpoints only, 1 instead of 2."""
    with storage.store.read() as first, storage.store.read() as second, storage.store.write() as third:
        for c in (first, second, third):
            assert c.execute(text("PRAGMA synchronous")).scalar() == 2
            assert c.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert c.execute(text("PRAGMA fullfsync")).scalar() is not None
    storage.close()


def test_a_file_is_flushed_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then rename, then folder. Broken on purpose: without any one of the three, the list is shorter."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").resolve()
        done.append("folder" if target.is_dir() else f"file of {target.stat().st_size} bytes")
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_durably(tmp_path / "file", b"content")
    assert done == ["file of 7 bytes", "rename", "folder"]


def test_files_of_every_kind_go_that_way(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: with `put` writing the bytes itself; seen: nothing was flushed where two flushes are due."""
    flushed: list[int] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    for files in (storage.weights, storage.onnx, storage.saves):
        before = len(flushed)
        files.put(b"some bytes")
        assert len(flushed) - before == 2
    storage.close()


def test_a_file_that_is_there_already_is_flushed_into_its_folder(storage: Storage, tmp_path: Path) -> None:
    """Whoever put it may have been killed between the rename and the flush; the row that names it is written next.

    Seen to fail before it was mended: nothing was flushed."""
    storage.saves.put(b"some bytes")
    flushed: list[Path] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        fsync(descriptor)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", note)
        storage.saves.put(b"some bytes")
    assert flushed == [tmp_path / "data" / "saves"]
    storage.close()


def test_a_folder_that_is_made_is_flushed_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new data folder, and its folders of files, must not vanish with all that was acknowledged in them.

    Broken on purpose: as it was, `mkdir` was left to the kernel's own pace."""
    flushed: set[Path] = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.add(Path(f"/proc/self/fd/{descriptor}").resolve())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    made = Storage(tmp_path / "new" / "data", connections=1, clock=lambda: 0.0)
    made.close()
    assert {tmp_path, tmp_path / "new", tmp_path / "new" / "data"} <= flushed
