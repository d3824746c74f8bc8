"""`--store-url` as its operator meets it: what works with a PostgreSQL, what is refused, where the password goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mier_service.config import STORE_URL_VARIABLE
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import CALL_S, acts, batch, fine_tune, mierctl, submit
from tests.contract.keys import wait_until
from tests.contract.server import Server, serving
from tests.postgres import Postgres

PASSWORD = "only-for-the-database"


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_store().replace("mier@", f"mier:{PASSWORD}@")


def test_keys_purge_and_a_password_that_stays_secret(
    checkpoints: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are made before the first start and while it runs; a purge goes through once it does not; neither command
    line nor the log has the password."""
    monkeypatch.setenv(STORE_URL_VARIABLE, url)
    data = tmp_path / "data"
    key = mierctl("keys", "create", "--scope", "admin", "--data", data).stdout.strip()
    with serving(checkpoints, data, "--keys", "required", store_url=url) as server:
        wait_until(server.http, key, good=True)
        client = connect(server, "grpc", key)
        kept, gone = (client.create_session(REWARD, seed, None, "", CALL_S) for seed in (1, 2))
        submit(client, gone, batch(40))
        assert fine_tune(client, gone, updates=5).result_version == 2
        action = acts(client, kept)
        client.close()
        everywhere = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (server.pid, *_children(server))]
        assert len(everywhere) == 2
        assert not [line for line in (*everywhere, server.log()) if PASSWORD in line]
        refused = mierctl("purge", "--session", gone.id, "--data", data)
        assert "is running" in refused.stderr
        key_id = key.split("_")[1]
        assert mierctl("keys", "revoke", key_id, "--data", data).returncode == 0
        wait_until(server.http, key, good=False)
        assert key_id in mierctl("keys", "list", "--data", data).stdout
    assert not list(data.glob("*.sqlite3"))
    purged = mierctl("purge", "--session", gone.id, "--data", data)
    assert (purged.returncode, purged.stdout.strip()) == (0, gone.id), purged.stderr
    assert not list((data / "weights").iterdir())
    with serving(checkpoints, data, store_url=url) as server:
        client = connect(server, "http")
        assert acts(client, kept) == action
        client.close()
        assert server.rows("SELECT count(*) FROM transition_batches") == [(0,)]


def test_what_mierctl_does_not_do_there_it_refuses(tmp_path: Path, url: str) -> None:
    """With what to do instead; and nothing is made."""
    for arguments, words in (
        (("backup", tmp_path / "backup"), "pg_dump"),
        (("restore", tmp_path / "backup"), "pg_restore"),
        (("keys", "list"), "no schema yet"),
        (("purge", "--session", "s"), "no session 's'"),
    ):
        refused = mierctl(*arguments, "--data", tmp_path / "data", "--store-url", url)
        assert refused.returncode == 1
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--store-url", f"mysql://mier:{PASSWORD}@host/mier"), "expected --store-url postgresql://"),
        (("--store-url", f"postgresql://mier:{PASSWORD}@/mier?host=/nowhere"), "no connection to PostgreSQL"),
    ],
)
def test_a_store_that_cannot_be_used_ends_the_start(
    flags: tuple[str, ...], words: str, checkpoints: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=words) as told:
        Server(checkpoints, tmp_path / "data", *flags)
    assert PASSWORD not in str(told.value)


def _children(server: Server) -> Iterator[int]:
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())
