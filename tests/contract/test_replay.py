"""A session's lineage as a tree, and made again from its log by the real command: all of a rich life, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mier.calibration import GateThresholds
from mier.config import AdaptConfig, AdaptMethod
from mier.types import Varies
from mier_client.transport import Page, Transport
from mier_client.values import OperationState, PolicyVersion, Promotion, Session, SessionMode, VersionOrigin, Window
from mier_service.data.layout import DATABASE_FILE
from mier_service.mierctl.__main__ import app
from tests.contract import tiny
from tests.contract.conftest import connect
from tests.contract.followed import FIRST, SECOND, STRANGE, task, until, write_checkpoints
from tests.contract.helpers import ALL, CALL_S, batch, fine_tune, mierctl, rows, submit, wait
from tests.contract.releases import SESSION, make_data_folder
from tests.contract.server import Server

GATED, NEWER = "tiny-gated", "tiny-newer"
HARD = GateThresholds(promote_above=1e6, reject_below=-1e6, candidates=1)
"""Nothing is promoted: what is asked is whether the verdict is the same."""


@dataclass(frozen=True)
class Life:
    """A data folder, and the sessions that were lived through in it."""

    checkpoints: Path
    data: Path
    server: Server
    rich: Session
    """Windows of all kinds, fine-tunes that ended in every way, a pin, moves and rollbacks."""
    followed: Session
    """A context that follows its task, which changes; a fine-tune in between."""
    stepwise: Session
    """A context that followed single transitions, by the recursive update."""

    def command(self, *words: str, session: str, data: Path | None = None) -> list[str]:
        store = ["--store-url", self.server.store_url] if self.server.store_url else []
        folder = ["--checkpoints", str(self.checkpoints)] if words[0] == "replay" else []
        return [*words, session, "--data", str(data or self.data), *store, *folder]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("replayed") / "checkpoints"
    adapt = AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, min_transitions=20)
    tiny.write(made, GATED, Varies.DYNAMICS, seed=0, gate=HARD, adapt=adapt)
    tiny.write(made, NEWER, Varies.DYNAMICS, seed=5, environment=GATED, context_dim=5)
    write_checkpoints(made, STRANGE)
    return made


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def life(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").new_store()
    data = tmp_path_factory.mktemp("life") / "data"
    server = Server(folder, data, "--finetune-save-every-s", "0.1", store_url=url)
    http, grpc = (connect(server, kind) for kind in ("http", "grpc"))
    rich = http.create_session(GATED, 3, None, "", CALL_S)
    _first_part(http, rich)
    _killed_and_resumed(http, rich, server)
    _second_part(grpc, rich)
    yield Life(folder, data, server, rich, _followed(http, folder), _stepwise(grpc))
    http.close()
    grpc.close()
    assert server.stop() == 0


def _first_part(http: Transport, session: Session) -> None:
    """Windows of each kind; fine-tunes that are judged, and one that is cancelled; a pin."""
    for episode in range(3):
        submit(http, session, batch(40, seed=episode, episode=episode))
    http.adapt(session.id, ALL, "", CALL_S)
    http.adapt(session.id, Window(last_steps=50), "", CALL_S)
    submit(http, session, batch(20, seed=9, episode=0, first_step=40))  # an earlier episode goes on
    http.adapt(session.id, Window(from_episode=1), "", CALL_S)
    fine_tune(http, session, updates=40, seed=1)
    judged = versions(http, session)[-1]
    assert judged.promotion is Promotion.INSUFFICIENT_DATA
    http.promote(session.id, judged.number, "try it", "", CALL_S)
    http.adapt(session.id, ALL, "", CALL_S)  # no version: it is fine-tuned
    fine_tune(http, session, updates=30, seed=2)  # from the fine-tuned one
    http.roll_back(session.id, "worse", "", CALL_S)
    http.pin(session.id, None, "for a demonstration", "", CALL_S)
    http.adapt(session.id, ALL, "", CALL_S)  # no version: it is pinned
    http.unpin(session.id, "over", "", CALL_S)
    cancelled = http.finetune(session.id, 100_000, 3, "", CALL_S)
    http.cancel_operation(cancelled.id, "", CALL_S)
    assert wait(http, cancelled).state is OperationState.CANCELLED


def _killed_and_resumed(http: Transport, session: Session, server: Server) -> None:
    """Its worker is killed in the middle of a fine-tune, which goes on from its save."""
    asked = http.finetune(session.id, 600, 4, "", CALL_S)
    while not server.rows("SELECT id FROM operations WHERE id = ? AND save_hash IS NOT NULL", asked.id):
        assert not http.get_operation(asked.id, CALL_S).state.final, "it was too fast to be killed"
    for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    resumed = wait(http, asked)
    assert (resumed.state, resumed.attempts) == (OperationState.SUCCEEDED, 2)


def _second_part(transport: Transport, session: Session) -> None:
    """Moved to another checkpoint; a promotion leads back from there, and brings back a context; moved again."""
    transport.move(session.id, NEWER, "trained on more", "", CALL_S)
    fine_tune(transport, session, updates=20, seed=5)
    back = transport.promote(session.id, 2, "back", "", CALL_S)
    assert back.checkpoint == GATED
    transport.adapt(session.id, ALL, "", CALL_S)
    transport.move(session.id, NEWER, "once more", "", CALL_S)


def _followed(http: Transport, folder: Path) -> Session:
    """A task that changes, with a round that starts by itself before."""
    session = http.create_session(STRANGE, 0, None, "", CALL_S)
    http.set_mode(session.id, SessionMode.AUTO, "", CALL_S)
    submit(http, session, task(folder, FIRST, 0))
    until(http, session, lambda s: versions(http, s)[-1].origin is VersionOrigin.FINE_TUNE)
    http.set_mode(session.id, SessionMode.CONTEXT, "", CALL_S)
    for episode in range(1, 6):
        before = http.get_session(session.id, CALL_S).model_context.number
        submit(http, session, task(folder, FIRST if episode < 3 else SECOND, episode))
        if episode < 3:
            until(http, session, lambda s, n=before: s.model_context.number > n)  # type: ignore[misc]
    return until(http, session, lambda s: s.task_number == 2 and s.model_context.transitions_used >= 40)


def _stepwise(transport: Transport) -> Session:
    """Within an episode, some transitions at a time."""
    session = transport.create_session(GATED, 0, None, "", CALL_S)
    transport.set_mode(session.id, SessionMode.CONTEXT, "", CALL_S)
    whole = batch(60, seed=8)
    for first in range(0, 60, 20):
        submit(transport, session, rows(whole, first, first + 20))
        until(transport, session, lambda s, n=first + 20: s.model_context.transitions_used == n)  # type: ignore[misc]
    return session


def versions(transport: Transport, session: Session) -> list[PolicyVersion]:
    return list(transport.list_versions(session.id, Page(100, ""), CALL_S)[0])


def replayed(life: Life, session: str, data: Path | None = None) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status, and what was found of each thing."""
    ran = CliRunner().invoke(app, [*life.command("replay", session=session, data=data), "--json"])
    if not ran.stdout.startswith("{"):
        return ran.exit_code, {"said": {"detail": ran.stderr}}
    told = json.loads(ran.stdout)
    assert told["exit_status"] == ran.exit_code
    return ran.exit_code, {f"{item['what']} {item['which']}": item for item in told["findings"]}


def not_equal(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: item["outcome"] for name, item in found.items() if item["outcome"] != "equal"}


def test_a_rich_life_is_made_again_to_the_bit(life: Life) -> None:
    """While its service runs. Broken on purpose: with the learning rate of a fine-tune as the checkpoint has it, twice;
    with a followed context begun anew at each step; with a window by episode taken from the end: each is named."""
    for session, contexts, made in ((life.rich, 10, 11), (life.followed, 4, 4), (life.stepwise, 4, 4)):
        status, found = replayed(life, session.id)
        assert (status, not_equal(found)) == (0, {}), found
        kinds = [name.split()[0] for name in found]
        assert kinds.count("context") >= contexts, kinds
        assert kinds.count("version") >= made, kinds


def test_the_command_says_what_it_compared(life: Life) -> None:
    ran = mierctl(*life.command("replay", session=life.rich.id))
    assert ran.returncode == 0, ran.stderr
    assert "context 0: equal" in ran.stdout
    assert "cancelled after" in ran.stdout
    assert "compared: bit for bit\n" in ran.stdout
    assert "made with" not in ran.stdout
    assert '"core_sha256": ' in ran.stdout


def test_lineage_reads_as_a_tree(life: Life) -> None:
    told = mierctl(*life.command("versions", "tree", session=life.rich.id)).stdout
    lines = told.splitlines()
    assert lines[0] == f"session {life.rich.id}"
    assert lines[1].startswith(f"checkpoint {GATED} {life.rich.checkpoint_hash[:12]}")
    assert "├ version 2, context 1 adapted from transitions 0 to 119" in told
    assert "40 updates, seed 1, relabel cross_task=True" in told
    assert "insufficient_data" in told
    assert sum("ACTS" in line for line in lines) == 1
    assert lines[-1].endswith("cancelled")
    ran = CliRunner().invoke(app, [*life.command("versions", "tree", session=life.rich.id), "--json"])
    whole = json.loads(ran.stdout)
    tuned_value = next(v for v in whole["versions"] if v["origin"] == "fine_tune")
    operation = next(o for o in whole["operations"] if o["id"] == tuned_value["operation_id"])
    assert (tuned_value["first_transition"], tuned_value["transitions_used"]) == (0, 140)
    assert (operation["first_transition"], operation["transitions_used"]) == (0, 140)
    assert tuned_value["configuration"]["updates"] == 40
    assert tuned_value["made_with"][0]["core_sha256"]
    context = next(c for c in whole["model_contexts"] if c["number"] == tuned_value["model_context_number"])
    assert context["window"]["from_episode"] == 1
    assert context["origin"]["transitions_stored"] == 140


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_version_names_where_it_came_from(life: Life, kind: str) -> None:
    """And an action names its version, over both transports."""
    transport = connect(life.server, kind)
    told = versions(transport, life.rich)
    transport.close()
    assert all(json.loads(version.made_with_json or "[]") for version in told)
    adapted = {version.first_transition for version in told if version.origin is VersionOrigin.ADAPT}
    assert adapted == {0, 70, None}  # all, the last 50 of 120, by episode
    tuned = [version for version in told if version.origin is VersionOrigin.FINE_TUNE]
    assert {(version.first_transition, version.transitions_used) for version in tuned} == {(0, 140)}


@pytest.fixture
def damaged(life: Life, tmp_path: Path) -> Path:
    """A copy of the data folder, to be damaged; where its store is a file."""
    if life.server.store_url is not None:
        pytest.skip("the store is not in the folder")
    copy = tmp_path / "data"
    shutil.copytree(life.data, copy)
    return copy


def change(data: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(data / DATABASE_FILE)) as database, database:
        assert database.execute(statement, values).rowcount == 1


def flip(blob: bytes, byte: int) -> bytes:
    """With the lowest bit of a byte the other way round."""
    return blob[:byte] + bytes([blob[byte] ^ 1]) + blob[byte + 1 :]


def read(data: Path, query: str, *values: Any) -> Any:
    with closing(sqlite3.connect(data / DATABASE_FILE)) as database:
        return database.execute(query, values).fetchone()


def test_a_flipped_bit_in_a_stored_transition_is_named(life: Life, damaged: Path) -> None:
    """The lowest of a reward, which changes nothing that was made of it. Broken on purpose: without the digest of a
    batch all is equal."""
    query = "SELECT row, rows FROM transition_batches WHERE session_id = ? ORDER BY row"
    row, blob = read(damaged, query, life.followed.id)
    reward = 4 * (tiny.OBSERVATION_DIM + tiny.ACTION_DIM)
    change(damaged, "UPDATE transition_batches SET rows = ? WHERE row = ?", flip(blob, reward), row)
    status, found = replayed(life, life.followed.id, damaged)
    assert status == 1
    assert found["transitions 0 to 19"]["outcome"] == "different"
    assert "episode 0, steps 0 to 19" in found["transitions 0 to 19"]["detail"]
    assert replayed(life, life.stepwise.id, damaged)[0] == 0


def test_a_transition_that_is_gone_is_missed(life: Life, damaged: Path) -> None:
    query = "SELECT max(row) FROM transition_batches WHERE session_id = ?"
    change(damaged, "DELETE FROM transition_batches WHERE row = ?", *read(damaged, query, life.stepwise.id))
    status, found = replayed(life, life.stepwise.id, damaged)
    assert status == 1
    assert found["transitions all"]["detail"] == "expected 60, 40 are stored"
    assert "60 transitions were stored, 40 are" in found["context 3"]["detail"]


def test_a_flipped_bit_in_a_weight_file_is_named(life: Life, damaged: Path) -> None:
    """And what was made from those weights is still made again, from what they must have been."""
    query = "SELECT number, weights_hash FROM versions WHERE session_id = ? AND origin = 'fine_tune' ORDER BY number"
    number, name = read(damaged, query, life.followed.id)
    file = damaged / "weights" / f"{name}.safetensors"
    file.write_bytes(flip(file.read_bytes(), file.stat().st_size - 1))
    status, found = replayed(life, life.followed.id, damaged)
    assert status == 1
    assert list(not_equal(found)) == [f"version {number}"]
    assert f"safetensors file {name[:12]}... does not have the content" in found[f"version {number}"]["detail"]


@pytest.mark.parametrize("what", ["context", "policy", "onnx", "settings", "verdict"])
def test_what_was_altered_is_named(life: Life, damaged: Path, what: str) -> None:
    """And nothing else is."""
    of = life.followed.id
    query = "SELECT number, policy_context, onnx_hash, configuration_json FROM versions WHERE session_id = ?"
    number, own, onnx, settings = read(damaged, f"{query} AND origin = 'fine_tune'", of)
    one = "WHERE session_id = ? AND number = ?"
    expected = f"version {number}"
    if what == "context":
        (blob,) = read(damaged, f"SELECT context FROM model_contexts {one}", of, 2)
        change(damaged, f"UPDATE model_contexts SET context = ? {one}", flip(blob, 0), of, 2)
        expected = "context 2"
    elif what == "policy":
        change(damaged, f"UPDATE versions SET policy_context = ? {one}", flip(own, 0), of, number)
    elif what == "onnx":
        file = damaged / "policies" / f"{onnx}.onnx"
        file.write_bytes(flip(file.read_bytes(), file.stat().st_size // 2))
    elif what == "settings":
        other = json.dumps(json.loads(settings) | {"learning_rate": 1e-3}, sort_keys=True)
        change(damaged, f"UPDATE versions SET configuration_json = ? {one}", other, of, number)
    else:
        change(damaged, f"UPDATE versions SET promotion = 'promoted' {one}", of, number)
    status, found = replayed(life, of, damaged)
    assert (status, not_equal(found)) == (1, {expected: "different"}), found


def test_another_build_is_compared_within_a_tolerance(life: Life, damaged: Path) -> None:
    """A context that is off by a thousandth of the training tasks' deviation: a difference if this build made it."""
    one = "WHERE session_id = ? AND number = 2"
    blob, text = read(damaged, f"SELECT context, origin_json FROM model_contexts {one}", life.followed.id)
    moved = (np.frombuffer(blob, "<f4") * np.float32(1.0 + 1e-6)).tobytes()
    change(damaged, f"UPDATE model_contexts SET context = ? {one}", moved, life.followed.id)
    assert not_equal(replayed(life, life.followed.id, damaged)[1]) == {"context 2": "different"}
    there = json.dumps(json.loads(text) | {"made_with": '{"cpu": "another"}'})
    change(damaged, f"UPDATE model_contexts SET origin_json = ? {one}", there, life.followed.id)
    status, found = replayed(life, life.followed.id, damaged)
    assert (status, not_equal(found)) == (0, {"context 2": "within_tolerance"})
    ran = CliRunner().invoke(app, life.command("replay", session=life.followed.id, data=damaged))
    assert 'made with: {"cpu": "another"}' in ran.stdout
    assert "elsewhere contexts within 0.01 of the training tasks' deviations" in ran.stdout
    change(damaged, f"UPDATE model_contexts SET context = ? {one}", b"\0" * len(blob), life.followed.id)
    assert not_equal(replayed(life, life.followed.id, damaged)[1]) == {"context 2": "different"}


def test_what_is_missing_is_said(life: Life, damaged: Path, tmp_path: Path) -> None:
    """A session that was deleted, a checkpoint that is gone."""
    status, found = replayed(life, "0" * 32, damaged)
    assert status == 2
    assert "there is no session" in found["said"]["detail"]
    (tmp_path / "none").mkdir()
    words = life.command("replay", session=life.stepwise.id, data=damaged)
    ran = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "none")])
    assert ran.exit_code == 2
    assert f"version 1: not replayed: there is no checkpoint '{GATED}'" in ran.stdout


def test_what_the_first_release_left_is_named_as_unknown(life: Life, tmp_path: Path) -> None:
    """Nobody wrote down what its contexts were inferred from."""
    if life.server.store_url is not None:
        pytest.skip("its store is a file")
    make_data_folder(tmp_path / "data", 0.0)
    status, found = replayed(life, SESSION, tmp_path / "data")
    assert status == 2
    assert "before releases kept what a context is inferred from" in found["context 0"]["detail"]
    assert set(not_equal(found).values()) == {"not_replayed"}
