"""A newer checkpoint under a live session, over both transports: its history stays, and rolling back is safe."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mier.types import Varies
from mier_client.transport import Page, Transport
from mier_client.values import PolicyVersion, Session, VersionOrigin
from tests.contract import tiny
from tests.contract.conftest import REWARD, connect
from tests.contract.helpers import ALL, CALL_S, LEARN_S, acts, batch, fine_tune, refused, submit
from tests.contract.server import Server, serving

NEWER, WIDER, OTHER = "tiny-reward-2", "tiny-reward-wide", "tiny-other"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first checkpoint, newer ones of the same environment (one with a longer context), and one of another."""
    made = tmp_path_factory.mktemp("moving") / "checkpoints"
    tiny.write(made, REWARD, Varies.REWARD, seed=0)
    tiny.write(made, NEWER, Varies.REWARD, seed=5, environment=REWARD)
    tiny.write(made, WIDER, Varies.REWARD, seed=6, environment=REWARD, context_dim=5)
    tiny.write(made, OTHER, Varies.DYNAMICS, seed=7)
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    running = Server(folder, folder.with_name("data"), "--finetune-save-every-s", "0.2")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log()


def versions(transport: Transport, session: Session) -> list[PolicyVersion]:
    return list(transport.list_versions(session.id, Page(100, ""), CALL_S)[0])


@pytest.mark.parametrize("newer", [NEWER, WIDER])
def test_a_session_moves_with_its_history(transport: Transport, session: Session, newer: str) -> None:
    submit(transport, session, batch(40))
    transport.adapt(session.id, ALL, "", CALL_S)
    fine_tune(transport, session, updates=5)
    before = versions(transport, session)
    moved = transport.move(session.id, newer, "trained on more tasks", "", CALL_S)
    assert (moved.checkpoint, moved.active_version, moved.transitions_count) == (newer, 4, 40)
    assert moved.checkpoint_hash != session.checkpoint_hash
    assert moved.environment == session.environment
    assert (moved.model_context.number, moved.model_context.transitions_used) == (2, 40)
    *kept, last = versions(transport, session)
    assert [(v.number, v.weights_hash, v.checkpoint) for v in kept] == [
        (v.number, v.weights_hash, REWARD) for v in before
    ]
    assert (last.number, last.parent, last.origin, last.checkpoint) == (4, 3, VersionOrigin.ADAPT, newer)
    assert last.checkpoint_hash == moved.checkpoint_hash
    entry = transport.list_promotions(session.id, Page(100, ""), CALL_S)[0][-1]
    assert (entry.kind.value, entry.from_version, entry.to_version) == ("move", 3, 4)
    assert (entry.who, entry.reason) == ("anonymous", "trained on more tasks")
    # It acts and learns as one that was created on the new checkpoint and lived through the same.
    fresh = transport.create_session(newer, session.seed, None, "", CALL_S)
    submit(transport, fresh, batch(40))
    found = transport.adapt(fresh.id, ALL, "", CALL_S)
    assert moved.model_context.values.tolist() == found.model_context.values.tolist()
    assert acts(transport, session)[1:] == acts(transport, fresh)[1:]
    assert acts(transport, session)[0] == 4
    assert fine_tune(transport, session, updates=5).result_version == 5
    fine_tune(transport, fresh, updates=5)
    assert acts(transport, session)[1:] == acts(transport, fresh)[1:]
    assert acts(transport, session)[0] == 5
    assert submit(transport, session, batch(40)).duplicates == 40


def test_rolling_back_across_checkpoints_takes_the_session_back(transport: Transport, session: Session) -> None:
    """Broken on purpose: with the session left on the new checkpoint, adapt puts its context under old weights."""
    submit(transport, session, batch(40))
    of_old = transport.adapt(session.id, ALL, "", CALL_S)
    old = acts(transport, session)
    transport.move(session.id, WIDER, "try it", "", CALL_S)
    assert acts(transport, session) != old
    back = transport.roll_back(session.id, "worse on turns", "", CALL_S)
    assert (back.checkpoint, back.checkpoint_hash, back.active_version) == (REWARD, session.checkpoint_hash, 2)
    assert acts(transport, session) == old
    # The newest model context is the old checkpoint's again, under a number of its own.
    assert back.model_context.values.tolist() == of_old.model_context.values.tolist()
    assert back.model_context.number == 3
    again = transport.adapt(session.id, ALL, "", CALL_S)
    assert again.active_version.number == 4
    assert again.active_version.checkpoint == REWARD
    assert again.model_context.values.tolist() == of_old.model_context.values.tolist()
    assert fine_tune(transport, session, updates=5).result_version == 5
    forward = transport.promote(session.id, 3, "once more", "", CALL_S)
    assert (forward.checkpoint, len(forward.model_context.values)) == (WIDER, 5)
    assert transport.adapt(session.id, ALL, "", CALL_S).active_version.checkpoint == WIDER


def test_a_fine_tune_that_ends_after_a_rollback_across_checkpoints_does_not_act(
    transport: Transport, session: Session
) -> None:
    """Broken on purpose: without the comparison of checkpoints in the worker's publish, version 3 acts."""
    submit(transport, session, batch(40))
    transport.move(session.id, NEWER, "try it", "", CALL_S)
    asked = transport.finetune(session.id, 1000, 0, "", CALL_S)
    rolled_back = False
    for seen in transport.watch_operation(asked.id, LEARN_S):
        if seen.updates_done > 0 and not rolled_back:
            assert transport.roll_back(session.id, "worse", "", CALL_S).checkpoint == REWARD
            rolled_back = True
    assert transport.get_operation(asked.id, CALL_S).result_version == 3
    assert versions(transport, session)[-1].checkpoint == NEWER
    assert transport.get_session(session.id, CALL_S).checkpoint == REWARD
    assert acts(transport, session)[0] == 1


def test_with_too_little_data_it_begins_at_the_prior(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(5))
    moved = transport.move(session.id, NEWER, "newer", "", CALL_S)
    fresh = transport.create_session(NEWER, session.seed, None, "", CALL_S)
    assert moved.model_context.values.tolist() == fresh.model_context.values.tolist()
    assert versions(transport, session)[-1].origin is VersionOrigin.CHECKPOINT
    assert acts(transport, session)[1:] == acts(transport, fresh)[1:]
    assert acts(transport, session)[0] == 2


def test_another_environment_is_refused_difference_by_difference(transport: Transport, session: Session) -> None:
    with refused("ENVIRONMENT_MISMATCH", OTHER, "id: the session's is 'tiny-reward'", "varies", "healthy_ranges"):
        transport.move(session.id, OTHER, "r", "", CALL_S)
    assert transport.get_session(session.id, CALL_S).checkpoint == REWARD
    with refused("CHECKPOINT_NOT_FOUND", "no-such", NEWER):
        transport.move(session.id, "no-such", "r", "", CALL_S)
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.move("nobody", NEWER, "r", "", CALL_S)


def test_it_waits_for_learning_pins_and_pauses(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    transport.pin(session.id, None, "stay", "", CALL_S)
    with refused("VERSION_PINNED", "unpin"):
        transport.move(session.id, NEWER, "r", "", CALL_S)
    transport.unpin(session.id, "go on", "", CALL_S)
    transport.pause(session.id, "", CALL_S)
    with refused("SESSION_PAUSED", "resume"):
        transport.move(session.id, NEWER, "r", "", CALL_S)
    transport.resume(session.id, "", CALL_S)
    asked = transport.finetune(session.id, 1_000_000, 0, "", CALL_S)
    with refused("OPERATION_IN_PROGRESS", asked.id):
        transport.move(session.id, NEWER, "r", "", CALL_S)
    transport.cancel_operation(asked.id, "", CALL_S)


def test_it_is_done_once(transport: Transport, session: Session) -> None:
    key = uuid.uuid4().hex
    assert transport.move(session.id, NEWER, "newer", key, CALL_S).active_version == 2
    assert transport.move(session.id, NEWER, "newer", key, CALL_S).active_version == 2
    there = uuid.uuid4().hex
    assert transport.move(session.id, NEWER, "it is there already", there, CALL_S).active_version == 2
    assert len(versions(transport, session)) == 2
    # A late retry of it has no effect either.
    transport.roll_back(session.id, "back", "", CALL_S)
    assert transport.move(session.id, NEWER, "it is there already", there, CALL_S).active_version == 2
    assert transport.get_session(session.id, CALL_S).active_version == 1
    with refused("IDEMPOTENCY_KEY_REUSED"):
        transport.move(session.id, WIDER, "newer", key, CALL_S)


def test_a_checkpoint_replaced_under_its_name_is_moved_to(tmp_path: Path) -> None:
    """Sessions are bound by hash: they act on, are told what to do, and learn again once moved."""
    checkpoints, data = tmp_path / "checkpoints", tmp_path / "data"
    tiny.write(checkpoints, REWARD, Varies.REWARD, seed=0)
    with serving(checkpoints, data) as server:
        http = connect(server, "http")
        session = http.create_session(REWARD, 7, None, "", CALL_S)
        submit(http, session, batch(40))
        action = acts(http, session)
        http.close()
    shutil.rmtree(checkpoints / REWARD)
    tiny.write(checkpoints, REWARD, Varies.REWARD, seed=5)
    with serving(checkpoints, data) as server:
        grpc = connect(server, "grpc")
        assert acts(grpc, session) == action
        with refused("CHECKPOINT_CHANGED", "move"):
            grpc.adapt(session.id, ALL, "", CALL_S)
        moved = grpc.move(session.id, REWARD, "the folder was replaced", "", CALL_S)
        assert (moved.checkpoint, moved.active_version) == (REWARD, 2)
        assert moved.checkpoint_hash != session.checkpoint_hash
        assert grpc.adapt(session.id, ALL, "", CALL_S).published
        # Back on the old one it acts, though it cannot learn there any more.
        assert grpc.promote(session.id, 1, "as before", "", CALL_S).checkpoint_hash == session.checkpoint_hash
        assert acts(grpc, session) == action
        with refused("CHECKPOINT_CHANGED"):
            grpc.adapt(session.id, ALL, "", CALL_S)
        grpc.close()
