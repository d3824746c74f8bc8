"""Adaptation and fine-tuning over both transports, and the two contexts that are kept apart."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from mier_client.transport import Page, Transport
from mier_client.values import OperationState, PolicyVersion, Promotion, Session, VersionOrigin, Window
from mier_service.learning.learning import MAX_WINDOW_STEPS
from tests.contract.conftest import DYNAMICS
from tests.contract.helpers import ALL, CALL_S, LEARN_S, MEAN, OBSERVATION, batch, fine_tune, refused, submit, wait
from tests.contract.server import Server


def _versions(transport: Transport, session: Session) -> list[PolicyVersion]:
    return list(transport.list_versions(session.id, Page(100, ""), CALL_S)[0])


def test_adapt_publishes_a_version_with_the_context(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    before = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    found = transport.adapt(session.id, ALL, "", CALL_S)
    assert found.published
    assert found.model_context.number == 1
    assert found.model_context.transitions_used == 40
    assert found.elapsed_ms > 0
    assert None not in (
        found.model_context.heldout_nll_before,
        found.model_context.heldout_nll_after,
        found.model_context.ood_score,
    )
    first, second = _versions(transport, session)
    assert (second.number, second.parent, second.origin) == (2, 1, VersionOrigin.ADAPT)
    assert second.promotion is Promotion.UNGATED
    assert second.weights_hash == first.weights_hash
    assert second.policy_context.tolist() == found.model_context.values.tolist() != first.policy_context.tolist()
    after = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    assert after.policy_version == 2
    assert not np.array_equal(after.action, before.action)


def test_adapt_starts_at_the_prior_each_time(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    first = transport.adapt(session.id, ALL, "", CALL_S).model_context
    second = transport.adapt(session.id, ALL, "", CALL_S).model_context
    assert second.number == 2
    assert second.values.tolist() == first.values.tolist()


def test_windows_choose_the_transitions(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(30, seed=1, episode=0))
    submit(transport, session, batch(25, seed=2, episode=1))

    def used(window: Window) -> tuple[int, list[float]]:
        context = transport.adapt(session.id, window, "", CALL_S).model_context
        return context.transitions_used, context.values.tolist()

    everything, newest, later = used(ALL), used(Window(last_steps=25)), used(Window(from_episode=1))
    assert everything[0] == 55
    assert newest == later
    assert newest[0] == 25
    assert newest[1] != everything[1]
    assert used(Window(last_steps=1000)) == everything
    with refused("INSUFFICIENT_DATA", "20", "got 0"):
        used(Window(from_episode=2))
    with refused("INVALID_ARGUMENT", "last_steps"):
        used(Window(last_steps=0))


def test_too_little_data_is_refused(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(19))
    with refused("INSUFFICIENT_DATA", "20", "19"):
        transport.adapt(session.id, ALL, "", CALL_S)
    with refused("INSUFFICIENT_DATA", "20", "19"):
        transport.finetune(session.id, None, 0, "", CALL_S)
    assert len(_versions(transport, session)) == 1


def test_unknown_ids_are_refused(transport: Transport) -> None:
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.adapt("nobody", ALL, "", CALL_S)
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.finetune("nobody", None, 0, "", CALL_S)
    with refused("OPERATION_NOT_FOUND", "nothing"):
        transport.get_operation("nothing", CALL_S)
    with refused("OPERATION_NOT_FOUND", "nothing"):
        transport.cancel_operation("nothing", "", CALL_S)
    with refused("OPERATION_NOT_FOUND", "nothing"):
        list(transport.watch_operation("nothing", CALL_S))


@pytest.mark.parametrize("checkpoint", ["tiny-reward", DYNAMICS])
def test_fine_tuning_publishes_a_version_of_its_own(transport: Transport, checkpoint: str) -> None:
    session = transport.create_session(checkpoint, 0, None, "", CALL_S)
    submit(transport, session, batch(40))
    context = transport.adapt(session.id, ALL, "", CALL_S).model_context
    asked = transport.finetune(session.id, 45, 5, "", CALL_S)
    assert (asked.session_id, asked.updates_total, asked.seed) == (session.id, 45, 5)
    assert (asked.transitions_used, asked.start_version) == (40, 2)
    seen = list(transport.watch_operation(asked.id, LEARN_S))
    done = [item.updates_done for item in seen]
    assert done == sorted(done)
    assert done[-1] == 45
    last = seen[-1]
    assert (last.state, last.result_version, last.error) == (OperationState.SUCCEEDED, 3, None)
    assert {"critic_loss", "actor_loss", "alpha", "relabelled_reward_mean", "heldout_nll"} <= set(last.metrics)
    acted = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    version = _versions(transport, session)[-1]
    assert (acted.policy_version, acted.weights_hash) == (3, version.weights_hash)
    assert (version.number, version.parent, version.origin) == (3, 2, VersionOrigin.FINE_TUNE)
    assert (version.operation_id, version.seed, version.transitions_used) == (asked.id, 5, 40)
    assert version.promotion is Promotion.UNGATED
    assert version.model_context_number == context.number
    assert json.loads(version.configuration_json or "")["updates"] == 45
    assert version.weights_hash != _versions(transport, session)[0].weights_hash


def test_once_fine_tuned_adapt_moves_the_model_context_only(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    assert fine_tune(transport, session).result_version == 2
    before = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    found = transport.adapt(session.id, ALL, "", CALL_S)
    assert not found.published
    assert found.active_version.number == 2
    assert found.model_context.number == 1
    after = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    assert after.policy_version == before.policy_version == 2
    assert np.array_equal(after.action, before.action)
    assert transport.get_session(session.id, CALL_S).model_context.number == 1
    # A second round goes on from the fine-tuned weights.
    assert fine_tune(transport, session).start_version == 2
    assert [v.parent for v in _versions(transport, session)] == [0, 1, 2]


def test_the_default_budget_is_the_checkpoints(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    asked = transport.finetune(session.id, None, 0, "", CALL_S)
    assert asked.updates_total == 60
    assert wait(transport, asked).state is OperationState.SUCCEEDED


def test_a_cancelled_fine_tune_publishes_nothing(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    asked = transport.finetune(session.id, 1_000_000, 0, "", CALL_S)
    for seen in transport.watch_operation(asked.id, LEARN_S):
        if seen.updates_done > 0:
            break
    with refused("OPERATION_IN_PROGRESS", asked.id):
        transport.finetune(session.id, 10, 0, "", CALL_S)
    assert transport.cancel_operation(asked.id, "", CALL_S).cancel_requested
    last = wait(transport, asked)
    assert (last.state, last.result_version) == (OperationState.CANCELLED, None)
    assert transport.cancel_operation(asked.id, "", CALL_S).state is OperationState.CANCELLED
    assert len(_versions(transport, session)) == 1
    assert fine_tune(transport, session, updates=5).result_version == 2


def test_a_paused_fine_tune_goes_on_when_resumed(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    asked = transport.finetune(session.id, 3000, 0, "", CALL_S)
    paused_at = 0
    for seen in transport.watch_operation(asked.id, LEARN_S):
        if seen.updates_done > 0 and seen.state is OperationState.RUNNING and not paused_at:
            paused_at = seen.updates_done
            transport.pause(session.id, "", CALL_S)
        elif seen.state is OperationState.QUEUED and paused_at:
            assert transport.get_session(session.id, CALL_S).active_version == 1
            transport.resume(session.id, "", CALL_S)
    assert paused_at
    last = transport.get_operation(asked.id, CALL_S)
    assert last.state is OperationState.SUCCEEDED
    assert last.attempts == 2


def test_a_fine_tune_cancelled_while_it_waits_leaves_no_save(
    transport: Transport, session: Session, server: Server
) -> None:
    """Paused, it waits with its save; nobody is at it who would remove that.

    Seen to fail before it was mended: the save stayed until the service was started again."""
    submit(transport, session, batch(40))
    asked = transport.finetune(session.id, 1_000_000, 0, "", CALL_S)
    for seen in transport.watch_operation(asked.id, LEARN_S):
        if seen.state is OperationState.RUNNING and seen.updates_done > 0:
            transport.pause(session.id, "", CALL_S)
        elif seen.state is OperationState.QUEUED and seen.attempts:
            break
    with closing(sqlite3.connect(server.data / "mier.sqlite3", timeout=CALL_S)) as database:
        (name,) = database.execute("SELECT save_hash FROM operations WHERE id = ?", (asked.id,)).fetchone()
    save = server.data / "saves" / f"{name}.safetensors"
    assert save.is_file()
    assert transport.cancel_operation(asked.id, "", CALL_S).state is OperationState.CANCELLED
    assert not save.exists()


@pytest.mark.parametrize("window", [ALL, Window(from_episode=5)])
def test_a_window_that_is_too_large_is_not_even_read(
    transport: Transport, session: Session, server: Server, window: Window
) -> None:
    """The rows are only said to be there. Seen to fail before it was mended: they were read, all of them, to be
    counted."""
    with closing(sqlite3.connect(server.data / "mier.sqlite3", timeout=CALL_S)) as database, database:
        columns = "session_id, episode, first_step, count, rows, policy_versions"
        values = (session.id, 5, 0, MAX_WINDOW_STEPS + 1, b"", b"")
        database.execute(f"INSERT INTO transition_batches ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
    with refused("INVALID_ARGUMENT", str(MAX_WINDOW_STEPS + 1), str(MAX_WINDOW_STEPS), "window.last_steps"):
        transport.adapt(session.id, window, "", CALL_S)


def test_a_deleted_session_ends_its_fine_tune(transport: Transport, session: Session) -> None:
    submit(transport, session, batch(40))
    asked = transport.finetune(session.id, 1_000_000, 0, "", CALL_S)
    with refused("OPERATION_NOT_FOUND"):
        for seen in transport.watch_operation(asked.id, LEARN_S):
            if seen.updates_done > 0:
                transport.delete_session(session.id, "", CALL_S)


@pytest.mark.parametrize("updates", [0, -1, 1_000_001])
def test_a_budget_out_of_range_is_refused(transport: Transport, session: Session, updates: int) -> None:
    submit(transport, session, batch(40))
    with refused("INVALID_ARGUMENT", "updates"):
        transport.finetune(session.id, updates, 0, "", CALL_S)
