"""Idle sessions go by themselves, purged ones by hand; neither takes anything from the others."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mier_client.errors import NotFound
from mier_client.transport import Transport
from mier_client.values import Session
from tests.contract import releases
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, MEAN, OBSERVATION, acts, batch, fine_tune, mierctl, submit
from tests.contract.server import serving


def _gone(transport: Transport, session: Session) -> bool:
    try:
        transport.get_session(session.id, CALL_S)
    except NotFound:
        return True
    return False


def test_a_session_that_nobody_uses_goes_and_one_that_acts_stays(checkpoints: Path, tmp_path: Path) -> None:
    """Broken on purpose: with acting not counted as use, the acting session goes as well."""
    flags = ("--keep-idle-sessions-s", "2", "--sweep-every-s", "0.1")
    with serving(checkpoints, tmp_path / "data", *flags) as server:
        grpc = connect(server, "grpc")
        used = grpc.create_session(REWARD, 7, None, "", CALL_S)
        idle = grpc.create_session(REWARD, 8, None, "", CALL_S)
        submit(grpc, idle, batch(40))
        action = acts(grpc, used)
        while not _gone(grpc, idle):
            assert acts(grpc, used) == action
        for _ in range(200):
            assert acts(grpc, used) == action
        grpc.close()
    with closing(sqlite3.connect(tmp_path / "data" / "mier.sqlite3")) as database:
        for table in ("transition_batches", "versions", "model_contexts", "promotions", "operations"):
            query = f"SELECT count(*) FROM {table} WHERE session_id = ?"
            assert database.execute(query, (idle.id,)).fetchone() == (0,), table


def test_purging_leaves_no_byte_of_it(checkpoints: Path, tmp_path: Path) -> None:
    """Broken on purpose: without the compaction free pages are left, in which bytes may stay."""
    data = tmp_path / "data"
    with serving(checkpoints, data) as server:
        http = connect(server, "http")
        kept = http.create_session(REWARD, 7, None, "", CALL_S)
        gone = http.create_session(REWARD, 8, None, "", CALL_S)
        for session, seed in ((kept, 1), (gone, 2)):
            submit(http, session, batch(400, seed=seed))
            fine_tune(http, session, updates=5, seed=seed)
        action = acts(http, kept)
        running = mierctl("purge", "--session", gone.id, "--data", data)
        assert running.returncode == 1
        assert "is running" in running.stderr
        http.close()
    observation = batch(400, seed=2).observation[20].astype(np.float32).tobytes()
    assert observation in (data / "mier.sqlite3").read_bytes()
    tried = mierctl("purge", "--session", gone.id, "--dry-run", "--data", data)
    assert (tried.returncode, tried.stdout.strip()) == (0, gone.id)
    done = mierctl("purge", "--session", gone.id, "--data", data)
    assert (done.returncode, done.stdout.strip()) == (0, gone.id), done.stderr
    with closing(sqlite3.connect(data / "mier.sqlite3")) as database:
        assert database.execute("PRAGMA freelist_count").fetchone() == (0,)
    for file in data.glob("mier.sqlite3*"):
        assert observation not in file.read_bytes()
    assert len(list((data / "weights").iterdir())) == 1
    assert len(list((data / "policies").iterdir())) == 2
    with serving(checkpoints, data) as server:
        grpc = connect(server, "grpc")
        assert _gone(grpc, gone)
        assert acts(grpc, kept) == action
        assert grpc.act(kept.id, OBSERVATION, MEAN, CALL_S).policy_version == 2
        grpc.close()


@pytest.mark.parametrize("log", ["merged", "left by a crash"])
def test_a_dry_run_writes_nothing(tmp_path: Path, log: str) -> None:
    """On a store of the first release, with and without a log beside it that is not in the database yet.

    Seen to fail before it was mended: the store was brought to this release's schema, and what no row names was
    removed."""
    data = tmp_path / "data"
    releases.make_data_folder(data, time.time())
    (data / "policies" / "left.tmp").write_bytes(b"by a crash")
    with closing(sqlite3.connect(data / "mier.sqlite3", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE sessions SET seed = 5")
        if log == "merged":
            writer.close()
        before = _contents(data)
        assert (Path("mier.sqlite3-wal") in before) is (log != "merged")
        tried = mierctl("purge", "--idle-days", "0.001", "--dry-run", "--data", data)
        assert (tried.returncode, tried.stdout.strip()) == (0, releases.SESSION), tried.stderr
        assert "1 sessions would be deleted" in tried.stderr
        assert _contents(data) == before
        refused = mierctl("purge", "--session", "nobody", "--dry-run", "--data", data)
        assert (refused.returncode, "no session 'nobody'" in refused.stderr) == (1, True)
        assert _contents(data) == before


def _contents(folder: Path) -> dict[Path, bytes]:
    """Of every file but SQLite's index of the log, which its readers keep together."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_purging_by_idleness_and_its_refusals(tmp_path: Path) -> None:
    """On a store of the first release, which is brought up to date on the way."""
    data = tmp_path / "data"
    releases.make_data_folder(data, time.time())
    (policies, weights) = (set((data / kind).iterdir()) for kind in ("policies", "weights"))
    for arguments, words in (
        ((), "--idle-days"),
        (("--idle-days", "0"), "above 0"),
        (("--idle-days", "1", "--session", releases.SESSION), "not both"),
        (("--session", "nobody"), "no session 'nobody'"),
    ):
        refused = mierctl("purge", "--data", data, *arguments)
        assert refused.returncode == 1
        assert words in refused.stderr
    for days, gone in ((11, ""), (9, releases.SESSION)):
        with closing(sqlite3.connect(data / "mier.sqlite3")) as database, database:
            database.execute("UPDATE sessions SET last_used_s = ?", (time.time() - 10 * 86400,))
        assert set((data / "policies").iterdir()) == policies
        assert set((data / "weights").iterdir()) == weights
        assert mierctl("purge", "--data", data, "--idle-days", str(days)).stdout.strip() == gone
    assert [*(data / "policies").iterdir(), *(data / "weights").iterdir()] == []
