"""Transitions as files, by the command `mier-data`: out of a real session, into another, and the same at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pyarrow.parquet as pq
import pytest
from minari import EpisodeBuffer
from typer.testing import CliRunner, Result

from mier_client import Client
from mier_client.transport import TransitionBatch
from mier_client.values import Session
from mier_data.__main__ import app
from mier_data.episodes import pieces
from mier_data.minari_files import spaces
from tests.contract.conftest import REWARD
from tests.contract.helpers import batch, rows
from tests.contract.server import Server

Run = Callable[..., Result]
# Minari asks every data set for an author and a link.
pytestmark = pytest.mark.filterwarnings("ignore:.*is set to None:UserWarning", "ignore:env_spec is None:UserWarning")


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client.connect(f"grpc://{server.grpc}") as made:
        yield made


@pytest.fixture
def run(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, over HTTP or gRPC, with data sets of its own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def command(*arguments: str | Path, url: str = f"grpc://{server.grpc}") -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), "--url", url])

    return command


@pytest.fixture
def lived(client: Client) -> Session:
    """An episode that goes on and ends, with a gap in it; and one in which each step is seen anew."""
    session = client.create_session(REWARD)
    for steps in (rows(chained(30), 20, 30), rows(chained(30), 0, 12), batch(5, episode=7, version=0)):
        submit(client, session, steps)
    return session


def chained(count: int, episode: int = 2) -> TransitionBatch:
    """Steps each of which begins where the one before it ended; the last one ends the episode."""
    steps, last = batch(count, episode=episode), np.arange(count) == count - 1
    following = np.concatenate([steps.observation[1:], steps.next_observation[-1:]])
    return replace(steps, next_observation=following, truncated=last)


def submit(client: Client, session: Session, steps: TransitionBatch) -> None:
    client.submit_transitions(session.id, **vars(steps))


def by_step(client: Client, session_id: str) -> Mapping[tuple[int, int], tuple[np.ndarray, int]]:
    """What a session holds: its numbers, and which version acted."""
    found = {}
    for run in client.list_transitions(session_id):
        columns = [run.reward, run.terminated, run.truncated, run.observation, run.action, run.next_observation]
        for i, row in enumerate(np.column_stack(columns)):
            found[run.episode, run.first_step + i] = (row, run.policy_version[i])
    return found


def test_a_session_goes_through_minari_and_is_the_same(
    client: Client, lived: Session, run: Run, server: Server
) -> None:
    written = run("export", "minari", lived.id, "mier/tiny-v0", "--json")
    assert written.exit_code == 0, written.output
    assert json.loads(written.stdout)["transitions"] == 27

    dataset = minari.load_dataset("mier/tiny-v0")
    observation_space, action_space = spaces(lived.environment)
    assert dataset.observation_space == observation_space
    assert dataset.action_space == action_space
    assert isinstance(action_space, gymnasium.spaces.Box)
    assert action_space.high.tolist() == [1.0, 2.0]
    lengths = [len(episode.rewards) for episode in dataset.iterate_episodes()]
    assert lengths == [12, 10, 1, 1, 1, 1, 1]
    second = dataset[1]
    assert second.observations.shape == (11, 4)
    assert second.truncations.tolist() == [False] * 9 + [True]
    assert second.infos["mier_step"].tolist() == list(range(20, 31))
    assert second.infos["mier_policy_version"].tolist() == [0] + [1] * 10

    read = run("import", "minari", "mier/tiny-v0", "--checkpoint", REWARD, "--json", url=server.http)
    assert read.exit_code == 0, read.output
    reply = json.loads(read.stdout)
    assert (reply["stored"], reply["duplicates"]) == (27, 0)
    before, after = by_step(client, lived.id), by_step(client, reply["session"])
    assert sorted(after) == sorted(before)
    for key, (row, _) in before.items():
        np.testing.assert_array_equal(after[key][0], row)
    assert {version for _, version in after.values()} == {0}, "no version of that session chose these"

    again = run("import", "minari", "mier/tiny-v0", "--session", reply["session"], "--json")
    assert json.loads(again.stdout)["duplicates"] == 27
    beside = run("import", "minari", "mier/tiny-v0", "--session", reply["session"], "--first-episode", "100", "--json")
    assert json.loads(beside.stdout)["stored"] == 27
    assert {episode for episode, _ in by_step(client, reply["session"])} == {2, 7, 102, 107}


def test_a_data_set_of_others_goes_in(client: Client, run: Run) -> None:
    """Whose episodes have no numbers, and whose observations are float64."""
    wide = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    push = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    data = np.random.default_rng(0)
    episodes = [
        EpisodeBuffer(
            observations=data.normal(size=(n + 1, 4)),
            actions=data.uniform(-1, 1, (n, 2)).astype(np.float32),
            rewards=data.normal(size=n),
            terminations=np.arange(n) == n - 1,
            truncations=np.zeros(n, np.bool_),
        )
        for n in (3, 6)
    ]
    minari.create_dataset_from_buffers("others/point-v3", episodes, observation_space=wide, action_space=push)
    reply = json.loads(run("import", "minari", "others/point-v3", "--checkpoint", REWARD, "--json").stdout)
    found = by_step(client, reply["session"])
    assert sorted(found) == [(0, i) for i in range(3)] + [(1, i) for i in range(6)]
    np.testing.assert_array_equal(found[1, 4][0][3:7], episodes[1].observations[4].astype(np.float32))
    assert [bool(found[1, i][0][1]) for i in range(6)] == [False] * 5 + [True]


def test_a_session_becomes_a_table(client: Client, lived: Session, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "steps.parquet"
    file.write_bytes(b"something that was there")
    written = run("export", "parquet", lived.id, file)
    assert written.exit_code == 0, written.output
    assert "27 transitions" in written.stdout
    table = pq.read_table(file)
    about = json.loads(table.schema.metadata[b"mier"])
    assert about["session_id"] == lived.id
    assert about["environment"]["observation_names"] == ["x", "y", "dx", "dy"]
    assert [(row["episode"], row["step"]) for row in table.select(["episode", "step"]).to_pylist()] == [
        *((2, i) for i in range(20, 30)),
        *((2, i) for i in range(12)),
        *((7, i) for i in range(5)),
    ]
    before = by_step(client, lived.id)
    for row in table.to_pylist():
        columns = [row[name] for name in ("reward", "terminated", "truncated")]
        columns += row["observation"] + row["action"] + row["next_observation"]
        numbers, version = before[row["episode"], row["step"]]
        np.testing.assert_array_equal(np.array(columns, np.float32), numbers.astype(np.float32))
        assert row["policy_version"] == version
    assert [path.name for path in tmp_path.glob("*.parquet*")] == ["steps.parquet"]
    assert not list(tmp_path.glob(".*unfinished"))


def refusal(result: Result) -> str:
    assert isinstance(result.exception, Exception), result.output
    return str(result.exception)


def test_what_cannot_be_done_is_told(client: Client, lived: Session, run: Run) -> None:
    empty = client.create_session(REWARD)
    assert "has no transitions yet" in refusal(run("export", "minari", empty.id, "mier/empty-v0"))
    assert "expected a data set's id" in refusal(run("export", "minari", lived.id, "no version"))
    assert run("export", "minari", lived.id, "mier/twice-v0").exit_code == 0
    assert "already" in refusal(run("export", "minari", lived.id, "mier/twice-v0"))
    assert "minari list local" in refusal(run("import", "minari", "mier/none-v0", "--checkpoint", REWARD))
    assert "either --session or --checkpoint" in refusal(run("import", "minari", "mier/twice-v0"))
    thin = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    push = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    minari.create_dataset_from_buffers("others/thin-v0", [], observation_space=thin, action_space=push)
    assert "Box of shape [4]" in refusal(run("import", "minari", "others/thin-v0", "--session", empty.id))


def test_half_a_data_set_is_taken_away(
    lived: Session, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the disk is full at its first episode."""
    monkeypatch.setattr("mier_data.minari_files._buffer", full_disk)
    assert "No space left" in refusal(run("export", "minari", lived.id, "mier/half-v0"))
    assert not list((tmp_path / "minari").rglob("half*"))


def full_disk(piece: Any) -> EpisodeBuffer:
    raise OSError(28, "No space left on device")


def test_pieces_end_where_an_episode_does() -> None:
    """Also where its next step happens to begin with what was seen last."""
    steps = chained(6)
    ended = replace(steps, terminated=np.arange(6) == 2)
    assert [(piece.first_step, piece.count) for piece in pieces([ended])] == [(0, 3), (3, 3)]
    assert pieces([]) == []


def test_its_user_reads_one_line_and_not_a_traceback(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mier_data", "export", "parquet", "nobody", str(tmp_path / "x.parquet")]
    told = subprocess.run(
        [*command, "--url", server.http], capture_output=True, text=True, timeout=120, check=False, env=os.environ
    )
    assert told.returncode == 1
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert line.startswith("mier-data: SESSION_NOT_FOUND"), line
    assert not list(tmp_path.iterdir())
