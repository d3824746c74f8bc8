"""Sessions never see each other: any calls, in any order, over both transports, with hardly any room in memory.

Every answer is compared with that of a `PlainSession`, which is alone in the world.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from mier.checkpoint import Checkpoint
from mier_client.transport import ActQuery, Page, Transport
from mier_client.values import OperationState, SessionState, VersionOrigin
from mier_proto import convert
from mier_proto.v1 import adaptation_pb2 as pb
from mier_proto.v1 import adaptation_pb2_grpc as pb_grpc
from tests.contract import tiny
from tests.contract.conftest import DYNAMICS, REWARD, connect
from tests.contract.helpers import ALL, CALL_S, LEARN_S, OBSERVATION, batch, refused
from tests.contract.plain_session import PlainSession
from tests.contract.server import serving
from tests.fuzzing import Tried, fuzz

_UPDATES = 8
_ENDLESS = 1_000_000
_EPISODE_STEPS = tiny.HORIZON_STEPS
_WHY = "a test"
_FEW = st.integers(0, 1)
"""So that sessions with the same data and the same seeds, and so with the same files, are there."""


class Sessions(RuleBasedStateMachine):
    """Many sessions of one service, and one plain session for each of them."""

    checkpoints: dict[str, Checkpoint]
    transports: tuple[Transport, Transport]
    batches: pb_grpc.AdaptationServiceStub
    tried: Tried
    learned: Counter[str]

    alive = Bundle("alive")

    def __init__(self) -> None:
        super().__init__()
        self.plain: dict[str, PlainSession] = {}
        self.calls = 0

    @property
    def service(self) -> Transport:
        """HTTP and gRPC in turn."""
        self.calls += 1
        self.tried()
        return self.transports[self.calls % 2]

    @rule(target=alive, checkpoint=st.sampled_from((REWARD, DYNAMICS)), seed=_FEW)
    def create(self, checkpoint: str, seed: int) -> object:
        made = self.service.create_session(checkpoint, seed, None, "", CALL_S)
        assert made.id not in self.plain
        self.plain[made.id] = PlainSession(self.checkpoints[checkpoint], seed)
        return made.id

    @rule(target=alive, checkpoint=st.sampled_from((REWARD, DYNAMICS)), seed=_FEW, rows=_FEW)
    def create_adapted(self, checkpoint: str, seed: int, rows: int) -> object:
        """Sessions that share weights and differ by context; or that are equal in all but their name."""
        session = str(self.create(checkpoint, seed))
        self.submit(session, rows)
        self.adapt(session)
        return session

    @rule(session=alive, seed=_FEW)
    def submit(self, session: str, seed: int) -> None:
        plain = self.plain[session]
        steps = batch(_EPISODE_STEPS, seed=seed, episode=len(plain.transitions), version=plain.active)
        stored = self.service.submit_transitions(session, steps, "", CALL_S)
        plain.transitions.append(tiny.transitions(_EPISODE_STEPS, seed))
        assert (stored.stored, stored.transitions_count) == (_EPISODE_STEPS, plain.count)

    @rule(session=alive, episode=st.none() | st.integers(0, 3), step=st.integers(0, 9))
    def act(self, session: str, episode: int | None, step: int) -> None:
        self._acts_as_it_must(session, episode, step)

    @rule(session=alive)
    def adapt(self, session: str) -> None:
        plain = self.plain[session]
        if not plain.can_learn:
            with refused("SESSION_PAUSED" if plain.paused else "INSUFFICIENT_DATA"):
                self.service.adapt(session, ALL, "", CALL_S)
            return
        found = self.service.adapt(session, ALL, "", CALL_S)
        self.learned["adaptations"] += 1
        assert found.published == plain.adapt()
        assert (found.active_version.number, found.model_context.number) == (plain.active, plain.model_context[0])

    @rule(session=alive, seed=_FEW)
    def fine_tune(self, session: str, seed: int) -> None:
        plain = self.plain[session]
        if not plain.can_learn:
            with refused("SESSION_PAUSED" if plain.paused else "INSUFFICIENT_DATA"):
                self.service.finetune(session, _UPDATES, seed, "", CALL_S)
            return
        asked = self.service.finetune(session, _UPDATES, seed, "", CALL_S)
        *_, last = self.service.watch_operation(asked.id, LEARN_S)
        plain.fine_tune(_UPDATES, seed)
        self.learned["fine_tunes"] += 1
        assert (last.state, last.result_version) == (OperationState.SUCCEEDED, len(plain.versions))

    @rule(session=alive, other=alive)
    def cancel_while_another_acts(self, session: str, other: str) -> None:
        plain = self.plain[session]
        if not plain.can_learn:
            return
        asked = self.service.finetune(session, _ENDLESS, 0, "", CALL_S)
        self._acts_as_it_must(other, 1, 1)
        with refused("OPERATION_IN_PROGRESS", asked.id):
            self.service.finetune(session, _UPDATES, 0, "", CALL_S)
        self.service.cancel_operation(asked.id, "", CALL_S)
        *_, last = self.service.watch_operation(asked.id, LEARN_S)
        assert (last.session_id, last.state) == (session, OperationState.CANCELLED)

    @rule(session=alive, data=st.data())
    def promote(self, session: str, data: st.DataObject) -> None:
        plain = self.plain[session]
        number = data.draw(st.integers(1, len(plain.versions)))
        if plain.pinned:
            with refused("VERSION_PINNED"):
                self.service.promote(session, number, _WHY, "", CALL_S)
            return
        plain.promote(number)
        assert self.service.promote(session, number, _WHY, "", CALL_S).active_version == plain.active

    @rule(session=alive)
    def roll_back(self, session: str) -> None:
        plain = self.plain[session]
        if plain.pinned or len(plain.acted) == 1:
            with refused("VERSION_PINNED" if plain.pinned else "NO_EARLIER_VERSION"):
                self.service.roll_back(session, _WHY, "", CALL_S)
            return
        plain.acted.pop()
        assert self.service.roll_back(session, _WHY, "", CALL_S).active_version == plain.active

    @rule(session=alive, data=st.data())
    def pin(self, session: str, data: st.DataObject) -> None:
        plain = self.plain[session]
        number = data.draw(st.integers(1, len(plain.versions)))
        plain.promote(number)
        plain.pinned = True
        self.service.pin(session, number, _WHY, "", CALL_S)

    @rule(session=alive)
    def unpin(self, session: str) -> None:
        self.plain[session].pinned = False
        self.service.unpin(session, _WHY, "", CALL_S)

    @rule(session=alive, paused=st.booleans())
    def pause_or_resume(self, session: str, paused: bool) -> None:
        self.plain[session].paused = paused
        call = self.service.pause if paused else self.service.resume
        call(session, "", CALL_S)

    @rule(session=consumes(alive))
    def delete(self, session: str) -> None:
        del self.plain[session]
        self.service.delete_session(session, "", CALL_S)
        with refused("SESSION_NOT_FOUND", session):
            self.service.act(session, OBSERVATION, ActQuery(True, None, None), CALL_S)

    @invariant()
    def every_session_is_as_if_it_were_alone(self) -> None:
        for session, plain in self.plain.items():
            seen = self.service.get_session(session, CALL_S)
            assert (seen.seed, seen.active_version, seen.transitions_count) == (plain.seed, plain.active, plain.count)
            assert (seen.pinned, seen.state is SessionState.PAUSED) == (plain.pinned, plain.paused)
            number, context = plain.model_context
            assert seen.model_context.number == number
            np.testing.assert_allclose(seen.model_context.values, context, atol=1e-5)

    @invariant()
    def all_act_together_as_each_alone(self) -> None:
        """In one message, which computes those on the same weights in one run."""
        if not self.plain:
            return
        seen = convert.encode(OBSERVATION)
        asked = [pb.ActRequest(session_id=session, observation=seen, deterministic=True) for session in self.plain]
        self.tried()
        outcomes = self.batches.ActBatch(pb.ActBatchRequest(requests=asked), timeout=CALL_S).outcomes
        for plain, outcome in zip(self.plain.values(), outcomes, strict=True):
            assert outcome.response.policy_version == plain.active
            action = convert.decode(outcome.response.action, "action")
            np.testing.assert_allclose(action, plain.action(OBSERVATION, None, 0), atol=1e-5)

    def teardown(self) -> None:
        """At the end all act once more, and their lineage is read."""
        for session, plain in self.plain.items():
            self._acts_as_it_must(session, None, 0)
            versions = self.service.list_versions(session, Page(1000, ""), CALL_S)[0]
            assert [version.origin is VersionOrigin.FINE_TUNE for version in versions] == [
                version.fine_tuned for version in plain.versions
            ]
            for version, expected in zip(versions, plain.versions, strict=True):
                np.testing.assert_allclose(version.policy_context, expected.weights.context, atol=1e-5)
                own = plain.weights_hash(version.number)
                assert version.weights_hash == (own or versions[0].weights_hash)
            self.service.delete_session(session, "", CALL_S)
        assert self.service.list_sessions(Page(10, ""), CALL_S)[0] in ([], ())

    def _acts_as_it_must(self, session: str, episode: int | None, step: int) -> None:
        plain = self.plain[session]
        query = ActQuery(episode is None, episode, None if episode is None else step)
        acted = self.service.act(session, OBSERVATION, query, CALL_S)
        assert acted.policy_version == plain.active
        np.testing.assert_allclose(acted.action, plain.action(OBSERVATION, episode, step), atol=1e-5)


def test_sessions_never_see_each_other(
    checkpoints: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Two sessions and two policies fit into memory, so that every call finds others' state there, or none.

    Broken on purpose, each seen to fail: acts in one message under the first one's context; another session's policy
    where one's own is not in memory; exploration noise without the session's seed; transitions read without the
    session's id; a pin that pins all; files of a deleted session removed though an equal session has them."""
    with serving(checkpoints, tmp_path / "data", "--max-active-sessions", "2", "--max-policies", "2") as server:
        Sessions.checkpoints = {name: tiny.read(checkpoints, name) for name in (REWARD, DYNAMICS)}
        Sessions.transports = connect(server, "http"), connect(server, "grpc")
        Sessions.tried, Sessions.learned = Tried(), Counter()
        channel = grpc.insecure_channel(server.grpc)
        Sessions.batches = pb_grpc.AdaptationServiceStub(channel)
        try:
            run_state_machine_as_test(Sessions, settings=fuzz(4))
        finally:
            for transport in Sessions.transports:
                transport.close()
            channel.close()
    assert Sessions.learned.keys() == {"adaptations", "fine_tunes"}
    for name, count in (("tried", Sessions.tried.count), *Sessions.learned.items()):
        record_property(name, count)
