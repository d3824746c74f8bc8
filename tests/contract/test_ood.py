"""How far a task lies out of distribution, told by adapt, the session and each action, over both transports."""

from __future__ import annotations

import numpy as np
import pytest

from mier_client.transport import Transport
from mier_client.values import Session
from tests.contract.conftest import DYNAMICS
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, submit


def test_adapt_the_session_and_each_action_tell_the_percentile(transport: Transport, session: Session) -> None:
    """Broken on purpose: with acting refreshed only where a version was published, the pinned session's actions went
    on telling the percentile of before."""
    assert session.model_context.ood_percentile is None
    assert transport.act(session.id, OBSERVATION, MEAN, CALL_S).ood_percentile is None
    submit(transport, session, batch(40))
    first = transport.adapt(session.id, ALL, "", CALL_S).model_context.ood_percentile
    assert first is not None
    assert 0.0 <= first < 100.0
    assert transport.get_session(session.id, CALL_S).model_context.ood_percentile == first
    acted = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    assert acted.ood_percentile == first
    transport.pin(session.id, None, "as it is", "", CALL_S)
    strange = batch(40, seed=5, episode=1)
    strange = strange.__class__(**{**vars(strange), "reward": np.full_like(strange.reward, 1e4)})
    submit(transport, session, strange)
    later = transport.adapt(session.id, ALL, "", CALL_S).model_context.ood_percentile
    assert later is not None
    assert later == pytest.approx(95.0)  # 39 known tasks, all less strange: 1 - 2/40
    assert first < later
    after = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    assert (after.ood_percentile, after.policy_version) == (later, acted.policy_version)


def test_a_checkpoint_that_was_not_calibrated_tells_none(transport: Transport) -> None:
    session = transport.create_session(DYNAMICS, 0, None, "", CALL_S)
    submit(transport, session, batch(40))
    found = transport.adapt(session.id, ALL, "", CALL_S).model_context
    assert found.ood_score is not None
    assert found.ood_percentile is None
    assert transport.act(session.id, OBSERVATION, MEAN, CALL_S).ood_percentile is None
