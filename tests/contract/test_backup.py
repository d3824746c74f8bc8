"""Backup and restore by the real command, under live traffic: what was acknowledged before is there, and acts alike."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mier_client.errors import MierError
from mier_client.transport import TransitionBatch, Transport
from mier_client.values import Session
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, LEARN_S, MEAN, OBSERVATION, acts, batch, fine_tune, mierctl, submit
from tests.contract.server import Server, serving

STEPS = 7
SAVES = ("--finetune-save-every-s", "0.1")


@dataclass
class Traffic:
    """Robots that submit, act and adapt without a pause, and what the service acknowledged to them."""

    acknowledged: list[tuple[Session, TransitionBatch]] = field(default_factory=list)
    refused: list[MierError] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def drive(self, transport: Transport, number: int) -> None:
        """One robot's life; every fourth session of it is deleted again."""
        episode = 0
        try:
            session = transport.create_session(REWARD, number, None, "", CALL_S)
            while not self.stopping.is_set():
                steps = batch(STEPS, seed=1000 * number + episode, episode=episode)
                submit(transport, session, steps)
                with self.lock:
                    self.acknowledged.append((session, steps))
                transport.act(session.id, OBSERVATION, MEAN, CALL_S)
                if episode % 5 == 4:
                    transport.adapt(session.id, ALL, "", CALL_S)
                if episode % 4 == 3:
                    passing = transport.create_session(REWARD, 0, None, "", CALL_S)
                    submit(transport, passing, batch(STEPS))
                    transport.delete_session(passing.id, "", CALL_S)
                episode += 1
        except MierError as error:
            self.refused.append(error)

    def so_far(self) -> list[tuple[Session, TransitionBatch]]:
        with self.lock:
            return list(self.acknowledged)

    @contextmanager
    def under_way(self, server: Server) -> Iterator[None]:
        """Two robots over each transport."""
        transports = [connect(server, kind) for kind in ("http", "grpc", "http", "grpc")]
        robots = [
            threading.Thread(target=self.drive, args=(transport, number))
            for number, transport in enumerate(transports, 1)
        ]
        for robot in robots:
            robot.start()
        try:
            yield
        finally:
            self.stopping.set()
            for robot in robots:
                robot.join()
            for transport in transports:
                transport.close()
        assert self.refused == []


def test_a_backup_under_traffic_holds_all_that_was_acknowledged(checkpoints: Path, tmp_path: Path) -> None:
    """Broken on purpose: with all but the first 20 batches left out of the snapshot they are named; with a plain copy
    of the database file, without its log, it names files long gone; without saves the fine-tune begins anew."""
    copy = tmp_path / "backup"
    traffic = Traffic()
    with serving(checkpoints, tmp_path / "data", *SAVES) as source:
        http = connect(source, "http")
        steady = http.create_session(REWARD, 7, None, "", CALL_S)
        submit(http, steady, batch(40))
        http.adapt(steady.id, ALL, "", CALL_S)
        fine_tune(http, steady, updates=5)
        http.pin(steady.id, 2, "it is the steadier one", "", CALL_S)
        learning = http.create_session(REWARD, 8, None, "", CALL_S)
        submit(http, learning, batch(40))
        asked = http.finetune(learning.id, 1_000_000, 0, "", CALL_S)
        for seen in http.watch_operation(asked.id, LEARN_S):
            if seen.updates_done > 100:
                break
        before = acts(http, steady)
        with traffic.under_way(source):
            while len(traffic.so_far()) < 30:
                http.act(steady.id, OBSERVATION, MEAN, CALL_S)
            acknowledged = traffic.so_far()
            made = mierctl("backup", copy, "--data", source.data)
            assert made.returncode == 0, made.stderr
            assert len(traffic.so_far()) > len(acknowledged), "nothing went on meanwhile: it was no live backup"
        http.close()
    shutil.rmtree(tmp_path / "data")

    restored = mierctl("restore", copy, "--data", tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr
    with closing(sqlite3.connect(tmp_path / "restored" / "mier.sqlite3")) as database:
        (reported,) = database.execute("SELECT updates_done FROM operations WHERE id = ?", (asked.id,)).fetchone()
    with serving(checkpoints, tmp_path / "restored", *SAVES) as target:
        grpc = connect(target, "grpc")
        assert acts(grpc, steady) == before
        again = grpc.get_session(steady.id, CALL_S)
        assert (again.pinned, again.active_version, again.transitions_count) == (True, 2, 40)
        lost = [
            (session.id, steps.episode)
            for session, steps in acknowledged
            if submit(grpc, session, steps).duplicates != STEPS
        ]
        assert lost == []
        # The fine-tune goes on from its save: the first that its new worker reports is more than one update.
        for seen in grpc.watch_operation(asked.id, LEARN_S):
            if seen.attempts == 2 and seen.updates_done != reported:
                assert seen.updates_done > 50
                break
        grpc.cancel_operation(asked.id, "", CALL_S)
        grpc.close()
        assert "save_unreadable" not in target.log()


@pytest.fixture(scope="module")
def copied(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a store at rest, with a fine-tuned version."""
    folder = tmp_path_factory.mktemp("copied")
    with serving(checkpoints, folder / "data") as server:
        http = connect(server, "http")
        session = http.create_session(REWARD, 7, None, "", CALL_S)
        submit(http, session, batch(40))
        fine_tune(http, session, updates=5)
        http.close()
    made = mierctl("backup", folder / "backup", "--data", folder / "data")
    assert made.returncode == 0, made.stderr
    assert "sessions: 1, transitions: 40, files: 4" in made.stdout
    assert REWARD in made.stderr
    return folder


def _damage(backup: Path, what: str) -> str:
    """Breaks one file; its name."""
    (file,) = [path for path in backup.rglob("*") if path.is_file() and what in str(path)][:1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return file.name


@pytest.mark.parametrize("what", ["mier.sqlite3", "weights/", "policies/"])
def test_a_damaged_backup_is_not_restored(copied: Path, tmp_path: Path, what: str) -> None:
    """One bit. Broken on purpose: without the comparison of hashes it is restored."""
    backup = shutil.copytree(copied / "backup", tmp_path / "backup")
    name = _damage(backup, what)
    refused = mierctl("restore", backup, "--data", tmp_path / "data")
    assert refused.returncode == 1
    assert "damaged" in refused.stderr
    assert name in refused.stderr
    assert list(tmp_path.iterdir()) == [backup]


def test_a_backup_that_is_not_whole_is_not_restored(copied: Path, tmp_path: Path) -> None:
    backup = shutil.copytree(copied / "backup", tmp_path / "backup")
    manifest = json.loads((backup / "backup.json").read_text())
    (weights,) = (name for name in manifest["files"] if name.startswith("weights/"))
    (backup / weights).unlink()
    assert "missing" in mierctl("restore", backup, "--data", tmp_path / "data").stderr
    del manifest["files"][weights]
    (backup / "backup.json").write_text(json.dumps(manifest))
    assert "not whole" in mierctl("restore", backup, "--data", tmp_path / "data").stderr
    manifest["files"]["../outside"] = manifest["files"]["mier.sqlite3"]
    (backup / "backup.json").write_text(json.dumps(manifest))
    assert "../outside" in mierctl("restore", backup, "--data", tmp_path / "data").stderr
    (backup / "backup.json").unlink()
    assert "mierctl backup" in mierctl("restore", backup, "--data", tmp_path / "data").stderr
    assert list(tmp_path.iterdir()) == [backup]


def test_nothing_is_written_over(copied: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "note").write_text("mine")
    for command in (
        mierctl("restore", copied / "backup", "--data", data),
        mierctl("backup", data, "--data", copied / "data"),
    ):
        assert command.returncode == 1
        assert "nothing was touched" in command.stderr
    assert [path.name for path in data.iterdir()] == ["note"]
    (data / "note").unlink()
    assert mierctl("restore", copied / "backup", "--data", data).returncode == 0


def test_a_damaged_data_folder_is_not_backed_up(copied: Path, tmp_path: Path) -> None:
    data = shutil.copytree(copied / "data", tmp_path / "data")
    next((data / "weights").iterdir()).unlink()
    refused = mierctl("backup", tmp_path / "backup", "--data", data)
    assert refused.returncode == 1
    assert "is missing" in refused.stderr
    assert not (tmp_path / "backup").exists()
    assert mierctl("backup", tmp_path / "backup", "--data", tmp_path / "nowhere").returncode == 1
