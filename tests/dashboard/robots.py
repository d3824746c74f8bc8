"""Robots that do, one after another, everything that the dashboard shows."""

from __future__ import annotations

import itertools
import threading
from collections import Counter

import numpy as np

from mier_client.errors import MierError
from mier_client.transport import ActQuery, TransitionBatch, Transport
from mier_client.values import Operation, Session, Window
from tests.contract.conftest import connect
from tests.contract.server import Server

CALL_S = 60.0
CHECKPOINT = "cheetah-vel-ood"
UPDATES = 20
STEPS = 200
ACTS = 50
_MEAN = ActQuery(deterministic=True, episode=None, step=None)


class Robot:
    """Lives in a thread of its own. What it records is made up: random motion with a reward for its first speed."""

    def __init__(self, server: Server, kind: str, seed: int) -> None:
        self.tally: Counter[str] = Counter()
        self.fault: Exception | None = None
        self._server = server
        self._kind = kind
        self._random = np.random.default_rng(seed)

    def live(self, stop: threading.Event) -> None:
        """Acts all the while; records, adapts and is fine-tuned in between."""
        transport = connect(self._server, self._kind)
        try:
            session = transport.create_session(CHECKPOINT, 0, None, "", CALL_S)
            operation: Operation | None = None
            for episode in itertools.count():
                if stop.is_set():
                    return
                self._act(transport, session)
                transport.submit_transitions(session.id, self._trajectory(session, episode), "", CALL_S)
                transport.adapt(session.id, Window(last_steps=2 * STEPS), "", CALL_S)
                self.tally += Counter(submits=1, adaptations=1)
                operation = self._learn(transport, session, operation, episode)
        except Exception as error:
            self.fault = error
        finally:
            transport.close()

    def _act(self, transport: Transport, session: Session) -> None:
        stream = transport.open_act_stream()
        rows = self._random.normal(size=(ACTS, session.environment.observation_dim)).astype(np.float32)
        for row in rows:
            stream.act(session.id, row, _MEAN, CALL_S)
            transport.act(session.id, row, _MEAN, CALL_S)
        stream.close()
        try:
            transport.act(session.id, rows[0, :3], _MEAN, CALL_S)
        except MierError:
            self.tally["refusals"] += 1
        self.tally["acts"] += 2 * ACTS

    def _learn(
        self, transport: Transport, session: Session, operation: Operation | None, seed: int
    ) -> Operation | None:
        """One fine-tune after the other, each undone by hand once it is over."""
        if operation is None:
            return transport.finetune(session.id, UPDATES, seed, "", CALL_S)
        now = transport.get_operation(operation.id, CALL_S)
        if not now.state.final:
            return operation
        self.tally[f"fine-tunes {now.state.value}"] += 1
        self.tally["fine-tunes"] += 1
        transport.roll_back(session.id, "what came before was better", "", CALL_S)
        self.tally["decisions"] += 1
        return None

    def _trajectory(self, session: Session, episode: int) -> TransitionBatch:
        environment = session.environment
        seen = self._random.normal(size=(STEPS + 1, environment.observation_dim)).astype(np.float32)
        low, high = np.asarray(environment.action_low), np.asarray(environment.action_high)
        action = self._random.uniform(low, high, size=(STEPS, environment.action_dim)).astype(np.float32)
        return TransitionBatch(
            episode=episode,
            first_step=0,
            observation=seen[:-1],
            action=action,
            reward=-np.abs(seen[1:, 0]),
            next_observation=seen[1:],
            terminated=np.zeros(STEPS, np.bool_),
            truncated=np.zeros(STEPS, np.bool_),
            policy_version=(1,),
        )
