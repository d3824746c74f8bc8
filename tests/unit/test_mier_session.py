"""A session keeps model context and policy versions apart, and its lineage in order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mier.adaptation import InsufficientData, NotFinite
from mier.checkpoint import Checkpoint
from mier.exploration import noise
from mier.serialization import same
from mier.session import Session
from mier.types import Transitions, Varies

Make = Callable[..., Transitions]
OBSERVATION = np.array([0.3, -1.0, 2.0], np.float32)


@pytest.fixture(params=list(Varies))
def checkpoint(
    request: pytest.FixtureRequest, reward_checkpoint: Checkpoint, dynamics_checkpoint: Checkpoint
) -> Checkpoint:
    return reward_checkpoint if request.param is Varies.REWARD else dynamics_checkpoint


def act(session: Session) -> list[float]:
    action = session.act(OBSERVATION, episode=0, step=0, deterministic=True)
    assert action.dtype == np.float32
    return [float(a) for a in action]


def test_a_new_session_acts_on_the_checkpoint_under_the_prior(checkpoint: Checkpoint) -> None:
    session, agent = Session(checkpoint, seed=3), checkpoint.agent
    (version,) = session.versions
    assert (version.number, version.parent, version.fine_tuned) == (1, None, False)
    np.testing.assert_array_equal(version.weights.context, agent.prior_context.numpy())
    np.testing.assert_array_equal(session.model_context, agent.prior_context.numpy())
    unit = agent.policy(torch.from_numpy(OBSERVATION)[None], agent.prior_context[None], torch.zeros(1, 2))
    assert act(session) == pytest.approx(checkpoint.spec.from_unit_action(unit)[0].tolist(), abs=1e-6)


def test_exploration_is_the_sessions_noise_on_the_policy(checkpoint: Checkpoint) -> None:
    session, agent = Session(checkpoint, seed=3), checkpoint.agent
    drawn = torch.from_numpy(noise(3, 4, 5, 2))[None]
    unit = agent.policy(torch.from_numpy(OBSERVATION)[None], agent.prior_context[None], drawn)
    expected = checkpoint.spec.from_unit_action(unit)[0].tolist()
    for _ in range(2):  # a retry repeats its action
        found = session.act(OBSERVATION, episode=4, step=5, deterministic=False)
        assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.tolist() != session.act(OBSERVATION, episode=4, step=6, deterministic=False).tolist()
    assert found.tolist() != Session(checkpoint, 4).act(OBSERVATION, episode=4, step=5, deterministic=False).tolist()


def test_adapting_makes_a_version_of_the_same_weights(checkpoint: Checkpoint, transitions: Make) -> None:
    session, rows = Session(checkpoint, seed=3), transitions(checkpoint.spec, 40)
    before = act(session)
    session.observe(rows.rows(slice(0, 15)))
    session.observe(rows.rows(slice(15, None)))
    found = session.adapt()
    assert found.transitions_used == 40
    np.testing.assert_array_equal(found.context, checkpoint.agent.adapt(rows).context)
    np.testing.assert_array_equal(session.model_context, found.context)
    version = session.active
    assert (version.number, version.parent, version.fine_tuned) == (2, 1, False)
    np.testing.assert_array_equal(version.weights.context, found.context)
    assert same(version.weights.state, session.versions[0].weights.state)
    assert act(session) != before


def test_after_a_fine_tune_adapting_moves_the_model_context_alone(checkpoint: Checkpoint, transitions: Make) -> None:
    session = Session(checkpoint, seed=3)
    session.observe(transitions(checkpoint.spec, 40, seed=1))
    adapted = session.adapt()
    tuned = session.start_finetune()
    tuned.run(100)
    published = session.publish(tuned.result())
    assert (published.number, published.parent, published.fine_tuned) == (3, 2, True)
    assert session.active is published
    before, own = act(session), published.weights.context.copy()
    session.observe(transitions(checkpoint.spec, 40, seed=2))
    again = session.adapt()
    assert again.transitions_used == 80
    np.testing.assert_array_equal(session.model_context, again.context)
    assert not np.array_equal(again.context, adapted.context)
    assert session.active is published
    np.testing.assert_array_equal(session.active.weights.context, own)
    assert act(session) == before


def test_a_second_fine_tune_goes_on_from_the_first(checkpoint: Checkpoint, transitions: Make) -> None:
    session = Session(checkpoint, seed=3)
    session.observe(transitions(checkpoint.spec, 40))
    for number in (2, 3):
        tuned = session.start_finetune()
        if number == 3:
            assert same(tuned.result().state, session.active.weights.state)
            np.testing.assert_array_equal(tuned.result().context, session.active.weights.context)
        tuned.run(100)
        assert session.publish(tuned.result()).number == number
    assert [v.parent for v in session.versions] == [None, 1, 2]
    assert len({v.weights.to_bytes() for v in session.versions}) == 3


def test_learning_changes_acting_by_publishing_alone(checkpoint: Checkpoint, transitions: Make) -> None:
    session = Session(checkpoint, seed=3)
    session.observe(transitions(checkpoint.spec, 40))
    before = act(session)
    tuned = session.start_finetune()
    tuned.run(100)
    assert act(session) == before
    weights = session.publish(tuned.result()).weights.to_bytes()
    assert act(session) != before
    tuned.run(100)
    assert session.active.weights.to_bytes() == weights


def test_sessions_of_one_checkpoint_do_not_meet(checkpoint: Checkpoint, transitions: Make) -> None:
    one, other = Session(checkpoint, seed=3), Session(checkpoint, seed=3)
    before = act(other)
    one.observe(transitions(checkpoint.spec, 40))
    one.adapt()
    tuned = one.start_finetune()
    tuned.run(100)
    one.publish(tuned.result())
    one.model_context += 1.0
    assert act(other) == before == act(Session(checkpoint, seed=3))
    np.testing.assert_array_equal(other.model_context, checkpoint.agent.prior_context.numpy())


def test_the_sessions_seed_is_the_fine_tunes_unless_given(checkpoint: Checkpoint, transitions: Make) -> None:
    session = Session(checkpoint, seed=3)
    session.observe(transitions(checkpoint.spec, 40))
    assert session.start_finetune().seed == 3
    assert session.start_finetune(seed=8).seed == 8


def test_without_data_nothing_is_adapted(checkpoint: Checkpoint) -> None:
    session = Session(checkpoint, seed=3)
    for attempt in (session.adapt, session.start_finetune):
        with pytest.raises(InsufficientData, match="at least 20 transitions, came 0"):
            attempt()
    assert len(session.versions) == 1


def test_a_context_that_is_not_finite_changes_nothing(reward_checkpoint: Checkpoint, transitions: Make) -> None:
    session, rows = Session(reward_checkpoint, seed=3), transitions(reward_checkpoint.spec, 40)
    session.observe(rows._replace(reward=rows.reward.clone().fill_(torch.inf)))
    with pytest.raises(NotFinite):
        session.adapt()
    assert len(session.versions) == 1
    assert np.isfinite(session.model_context).all()
