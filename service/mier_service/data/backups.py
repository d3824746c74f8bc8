"""Backups of a data folder, taken while the service runs, and back again.

    DEST/backup.json                 format, time, SHA-256 and size of every other file; written last
    DEST/mier.sqlite3                a snapshot of the store: one moment, all that was committed before it
    DEST/weights, policies, saves    the immutable files that its rows name

Invariants
- A backup is there whole or not at all: it is made beside its place, flushed, and renamed. So is a restored folder.
- Nothing is taken on trust: a file's bytes have the SHA-256 that its name, or the manifest, says, when it is copied out
  and again when it is copied back.
- The service may delete a file between the snapshot and its copying (with its session, or as an old resume save).
  The snapshot is then taken anew, and does not name it any more.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mier_service.data.durable import sync_folder, write_durably
from mier_service.data.files import DamagedFile
from mier_service.data.folder_mark import bring_mark
from mier_service.data.layout import DATABASE_FILE, KINDS, Kind, content_files
from mier_service.data.places import FolderPlace, Place

MANIFEST = "backup.json"
FORMAT = 1
_CHUNK_BYTES = 1024 * 1024
_NAME = re.compile(r"mier\.sqlite3|(weights|policies|saves)/[0-9a-f]{64}\.(safetensors|onnx)")
# What rows name, in every release's schema; saves first, since they are the first to be replaced.
_NAMED = {
    Kind.SAVES: "SELECT save_hash FROM operations WHERE save_hash IS NOT NULL AND state IN ('queued', 'running')",
    Kind.POLICIES: "SELECT onnx_hash FROM versions",
    Kind.WEIGHTS: "SELECT weights_hash FROM versions WHERE origin = 'fine_tune'",
}


class BackupError(Exception):
    """A backup cannot be made or used; the message says what was expected, what came, what to do."""


class BackupFile(BaseModel):
    """One file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """What a backup holds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int
    create_time_s: float
    """Seconds since the epoch (UTC)."""
    sessions: int
    transitions: int
    checkpoints: dict[str, str]
    """Name by hash of those that sessions are on; they are not part of it."""
    files: dict[str, BackupFile]
    """By path within the backup."""


def back_up(data: Path, destination: Path, now_s: float, files: Place | None = None) -> Manifest:
    """Copies the data folder, whose service may be running, to a folder that is not there yet, or empty.

    Args:
        files: where its files are, if not in it.
    """
    if not (data / DATABASE_FILE).is_file():
        raise BackupError(f"expected a data folder of mier-serve, {data} has no {DATABASE_FILE}: give the right --data")
    _require_vacant(destination)
    with _made_whole(destination) as building:
        named = _snapshot_with_files(data, files or FolderPlace(data), building)
        for kind, names in named.items():
            kept = content_files(building, kind)
            for stale in kept.names() - names:
                kept.remove(stale)
        manifest = _describe(building, named, now_s)
        write_durably(building / MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


def restore(source: Path, data: Path) -> Manifest:
    """Makes a data folder of a backup, every file verified; only where there is none, or an empty one."""
    manifest = _read_manifest(source)
    _require_vacant(data)
    with _made_whole(data) as building:
        for name, expected in manifest.files.items():
            target = building / name
            target.parent.mkdir(exist_ok=True)
            _copy_verified(source / name, target, name, expected)
        for kind, names in _named_files(building / DATABASE_FILE).items():
            if missing := names - content_files(building, kind).names():
                raise BackupError(
                    f"the backup {source} is not whole: its store names {kind.value} file {min(missing)[:12]}..., "
                    "which it does not hold: use another backup"
                )
            sync_folder(building / kind.value)
        with _reading(building / DATABASE_FILE) as connection:
            bring_mark(connection, building)
    return manifest


def _snapshot_with_files(data: Path, files: Place, building: Path) -> dict[Kind, set[str]]:
    """Copies the store, then the files that the copy names; what it names."""
    lost = ""
    while True:
        snapshot = building / DATABASE_FILE
        snapshot.unlink(missing_ok=True)
        _copy_store(data / DATABASE_FILE, snapshot)
        named = _named_files(snapshot)
        try:
            for kind, names in named.items():
                ours, theirs = content_files(building, kind), content_files(files, kind)
                for name in sorted(names - ours.names()):
                    ours.put(theirs.get(name))
        except DamagedFile as error:
            # A file that the next snapshot names again was not deleted on purpose.
            if str(error) == lost:
                raise BackupError(
                    f"the data folder {data} is damaged: {error}. Give the --files-url if that is where the files are; "
                    "otherwise restore it from an earlier backup, or delete the "
                    "session that the file belongs to"
                ) from error
            lost = str(error)
        else:
            return named


def _copy_store(source: Path, target: Path) -> None:
    """One moment of a database that others write to meanwhile: a single read transaction."""
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, timeout=30.0)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy, pages=-1)
            # One file without a log beside it; the service switches back when it opens it.
            copy.execute("PRAGMA journal_mode=DELETE")
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"the store {source} cannot be copied: {error}") from error
    if verdict != "ok":
        raise BackupError(f"the store {source} is damaged: {verdict}")
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _named_files(database: Path) -> dict[Kind, set[str]]:
    """Hashes of the files that the rows name."""
    with _reading(database) as connection:
        return {kind: {row[0] for row in connection.execute(query)} for kind, query in _NAMED.items()}


@contextmanager
def _reading(database: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise BackupError(f"{database.name} cannot be read: {error}") from error


def _describe(building: Path, named: dict[Kind, set[str]], now_s: float) -> Manifest:
    names = [DATABASE_FILE]
    for kind, hashes in named.items():
        names += [f"{kind.value}/{name}.{KINDS[kind]}" for name in sorted(hashes)]
    files = {}
    for name in names:
        with (building / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = BackupFile(sha256=digest, size_bytes=(building / name).stat().st_size)
    with _reading(building / DATABASE_FILE) as connection:
        sessions, transitions = connection.execute(
            "SELECT count(*), coalesce(sum(transitions_count), 0) FROM sessions"
        ).fetchone()
        checkpoints = dict(connection.execute("SELECT checkpoint_hash, checkpoint FROM sessions"))
    return Manifest(
        format=FORMAT,
        create_time_s=now_s,
        sessions=sessions,
        transitions=transitions,
        checkpoints=checkpoints,
        files=files,
    )


def _read_manifest(source: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((source / MANIFEST).read_bytes())
    except OSError as error:
        raise BackupError(
            f"expected a backup made by `mierctl backup`, {source / MANIFEST} cannot be read: {error.strerror}"
        ) from error
    except ValidationError as error:
        raise BackupError(
            f"{source / MANIFEST} is damaged ({error.error_count()} errors): use another backup"
        ) from error
    if manifest.format != FORMAT:
        raise BackupError(f"expected a backup of format {FORMAT}, {source} has {manifest.format}: use a newer mierctl")
    strange = [name for name in manifest.files if not _NAME.fullmatch(name)]
    if strange or DATABASE_FILE not in manifest.files:
        raise BackupError(f"{source / MANIFEST} names files that no backup has, or no {DATABASE_FILE}: {strange[:3]}")
    return manifest


def _copy_verified(source: Path, target: Path, name: str, expected: BackupFile) -> None:
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reading, target.open("xb") as writing:
            while chunk := reading.read(_CHUNK_BYTES):
                digest.update(chunk)
                writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
    except FileNotFoundError as error:
        raise BackupError(f"the backup is not whole: {name} is missing: use another backup") from error
    by_name = name if name == DATABASE_FILE else Path(name).stem
    if digest.hexdigest() != expected.sha256 or by_name not in (DATABASE_FILE, expected.sha256):
        raise BackupError(
            f"the backup is damaged: {name} should have SHA-256 {expected.sha256}, it has {digest.hexdigest()} "
            f"({target.stat().st_size} bytes, {expected.size_bytes} expected): use another backup"
        )


def _require_vacant(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupError(
            f"expected a folder that is not there yet, or an empty one; {folder} is not: nothing was touched"
        )


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """A folder beside it that takes its place when the block ends without an error, and goes otherwise."""
    folder = folder.absolute()
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building.mkdir(mode=0o700)
        for kind in Kind:
            (building / kind.value).mkdir()
        yield building
        sync_folder(building)
        building.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise BackupError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
