"""Sessions over both transports: create, read, list, delete, pause and resume, versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mier import types
from mier_client.transport import Page, Transport
from mier_client.values import Promotion, Session, SessionState, Varies, VersionOrigin
from tests.contract import tiny
from tests.contract.conftest import DYNAMICS, REWARD
from tests.contract.helpers import ALL, CALL_S, LEARN_S, MEAN, OBSERVATION, batch, refused, submit


def test_a_new_session_says_what_it_controls(transport: Transport, session: Session) -> None:
    spec = tiny.spec(REWARD, types.Varies.REWARD)
    assert session.environment.id == spec.id
    assert session.environment.observation_names == spec.observation_names
    assert session.environment.action_high == spec.action_high
    assert (session.environment.dt_s, session.environment.horizon_steps) == (spec.dt_s, spec.horizon_steps)
    assert session.environment.varies is Varies.REWARD
    assert (session.seed, session.state, session.active_version) == (7, SessionState.ACTIVE, 1)
    assert session.model_context.number == 0
    assert session.model_context.heldout_nll_after is None
    assert session.transitions_count == 0
    again = transport.get_session(session.id, CALL_S)
    assert (again.id, again.checkpoint_hash, again.create_time) == (
        session.id,
        session.checkpoint_hash,
        session.create_time,
    )


def test_version_1_is_the_checkpoint_under_its_prior(transport: Transport, session: Session) -> None:
    versions, token = transport.list_versions(session.id, Page(10, ""), CALL_S)
    assert token == ""
    (first,) = versions
    assert (first.number, first.parent) == (1, 0)
    assert (first.origin, first.promotion) == (VersionOrigin.CHECKPOINT, Promotion.UNGATED)
    assert first.checkpoint_hash == session.checkpoint_hash
    assert first.policy_context.tolist() == session.model_context.values.tolist()


def test_sessions_on_one_checkpoint_share_their_weights(transport: Transport, session: Session) -> None:
    other = transport.create_session(REWARD, 0, None, "", CALL_S)
    stranger = transport.create_session(DYNAMICS, 0, None, "", CALL_S)
    hashes = [transport.act(s.id, OBSERVATION, MEAN, CALL_S).weights_hash for s in (session, other, stranger)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_lists_come_in_pages_oldest_first(transport: Transport, session: Session) -> None:
    made = [session.id, *(transport.create_session(REWARD, 0, None, "", CALL_S).id for _ in range(3))]
    seen: list[str] = []
    token = ""
    while True:
        page, token = transport.list_sessions(Page(2, token), CALL_S)
        assert len(page) <= 2
        seen += [item.id for item in page]
        if not token:
            break
    assert [item for item in seen if item in made] == made
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("page", [Page(-1, ""), Page(1001, ""), Page(10, "not a token")])
def test_pages_that_cannot_be(transport: Transport, session: Session, page: Page) -> None:
    with refused("INVALID_ARGUMENT"):
        transport.list_sessions(page, CALL_S)
    with refused("INVALID_ARGUMENT"):
        transport.list_versions(session.id, page, CALL_S)


def test_the_same_weights_under_other_bounds_are_another_policy(
    transport: Transport, session: Session, checkpoints: Path
) -> None:
    """A checkpoint whose actions were given narrower bounds. Its weights have the same hash, its policy another.

    Seen to fail before it was mended: the first one's policy acted for both, beyond the bounds of the second."""
    name = "tiny-narrow"
    if not (checkpoints / name).exists():
        tiny.write(checkpoints, name, types.Varies.REWARD, seed=0, bound=0.25)
    narrow = transport.create_session(name, 7, None, "", LEARN_S)  # its policy is exported, which takes seconds
    assert narrow.environment.action_high == (0.25, 0.5)
    wide, bounded = (transport.act(each.id, OBSERVATION, MEAN, CALL_S) for each in (session, narrow))
    assert bounded.weights_hash == wide.weights_hash
    assert bounded.action == pytest.approx(0.25 * wide.action, abs=1e-6)
    transport.delete_session(narrow.id, "", CALL_S)
    assert transport.act(session.id, OBSERVATION, MEAN, CALL_S).action.tolist() == wide.action.tolist()


def test_a_deleted_session_is_gone(transport: Transport, session: Session) -> None:
    submit(transport, session, batch())
    transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    transport.delete_session(session.id, "", CALL_S)
    with refused("SESSION_NOT_FOUND", session.id):
        transport.get_session(session.id, CALL_S)
    with refused("SESSION_NOT_FOUND"):
        transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    with refused("SESSION_NOT_FOUND"):
        submit(transport, session, batch())
    with refused("SESSION_NOT_FOUND"):
        transport.delete_session(session.id, "", CALL_S)


def test_a_fitting_environment_is_accepted(transport: Transport, session: Session) -> None:
    made = transport.create_session(REWARD, 0, session.environment, "", CALL_S)
    assert made.environment == session.environment


def test_an_environment_that_does_not_fit_is_refused(transport: Transport, session: Session) -> None:
    fewer = replace(session.environment, action_names=("push_x",), action_low=(-1.0,), action_high=(1.0,))
    with refused("ENVIRONMENT_MISMATCH", "action_names", "push_y", REWARD):
        transport.create_session(REWARD, 0, fewer, "", CALL_S)
    slower = replace(session.environment, dt_s=0.1)
    with refused("ENVIRONMENT_MISMATCH", "dt_s", "0.1", "0.05"):
        transport.create_session(REWARD, 0, slower, "", CALL_S)


def test_unknown_names_say_what_there_is(transport: Transport) -> None:
    with refused("CHECKPOINT_NOT_FOUND", "no-such", REWARD, DYNAMICS):
        transport.create_session("no-such", 0, None, "", CALL_S)
    with refused("CHECKPOINT_NOT_FOUND"):
        transport.create_session("../" + REWARD, 0, None, "", CALL_S)
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.get_session("nobody", CALL_S)
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.list_versions("nobody", Page(10, ""), CALL_S)


@pytest.mark.parametrize("seed", [-1, 2**53])
def test_a_seed_out_of_range_is_refused(transport: Transport, seed: int) -> None:
    with refused("INVALID_ARGUMENT", "seed"):
        transport.create_session(REWARD, seed, None, "", CALL_S)


def test_a_paused_session_acts_and_records_but_does_not_learn(transport: Transport, session: Session) -> None:
    assert transport.pause(session.id, "", CALL_S).state is SessionState.PAUSED
    submit(transport, session, batch())
    assert transport.act(session.id, OBSERVATION, MEAN, CALL_S).policy_version == 1
    with refused("SESSION_PAUSED", "resume"):
        transport.adapt(session.id, ALL, "", CALL_S)
    with refused("SESSION_PAUSED", "resume"):
        transport.finetune(session.id, None, 0, "", CALL_S)
    assert transport.resume(session.id, "", CALL_S).state is SessionState.ACTIVE
    assert transport.adapt(session.id, ALL, "", CALL_S).published
    with refused("SESSION_NOT_FOUND"):
        transport.pause("nobody", "", CALL_S)
