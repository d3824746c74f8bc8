"""Robots: clients that make every write call there is, over one transport each, and keep a ledger of it."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mier_client.errors import MierError
from mier_client.transport import TransitionBatch, Transport
from mier_client.values import SessionMode, Window
from tests.contract.conftest import REWARD
from tests.contract.helpers import CALL_S, MEAN, OBSERVATION, batch
from tests.promises.ledger import LONG_UPDATES, UNANSWERED, Ask, Ledger

SECOND = "tiny-reward-2"
"""Another checkpoint of the same environment."""
KEPT_SESSIONS = 2
_RECENT = Window(last_steps=30)


@dataclass
class _Session:
    id: str
    episodes: int = 0
    versions: int = 1
    active: int = 1
    pinned: bool = False
    paused: bool = False
    operation: str | None = None
    last: TransitionBatch | None = None
    acted: set[str] = field(default_factory=set)


class Robot:
    """One client's life, from server to server."""

    def __init__(self, ledger: Ledger, over: str, seed: int, learns: bool = True) -> None:
        """`learns`: whether it asks for fine-tunes, too."""
        self._learns = learns
        self._ledger = ledger
        self._over = over
        self._random = random.Random(seed)
        self._number = seed << 32
        self._sessions: list[str] = []
        self.fault: BaseException | None = None

    def live(self, transport: Transport, lives: int, stop: threading.Event) -> None:
        """So many sessions one after another; ends early when the service does not answer."""
        try:
            for _ in range(lives):
                if stop.is_set():
                    return
                self._session(transport)
        except UNANSWERED:
            return
        except BaseException as error:
            self.fault = error
        finally:
            with self._ledger.changed:
                self._ledger.changed.notify_all()

    def _session(self, transport: Transport) -> None:
        self._number += 1
        created = self._ask(transport, "create_session", "", REWARD, self._number, None)
        s = _Session(created.id)
        self._sessions.append(s.id)
        self._submit(transport, s, 25)
        self._adapt(transport, s)
        deeds = ["submit", "again", "adapt", "fine_tune", "promote", "roll_back", "pin", "unpin", "pause", "resume"]
        deeds += ["act", "cancel", "move", "follow"]
        if not self._learns:
            deeds.remove("fine_tune")
        self._random.shuffle(deeds)
        for deed in deeds:
            try:
                self._do(transport, s, deed)
            except UNANSWERED:
                raise
            except MierError as error:
                if error.reason not in ("SESSION_PAUSED", "OPERATION_IN_PROGRESS", "VERSION_PINNED", "QUEUE_FULL"):
                    raise
        while len(self._sessions) > KEPT_SESSIONS:
            self._ask(transport, "delete_session", self._sessions.pop(0))

    def _do(self, transport: Transport, s: _Session, deed: str) -> None:
        if deed == "submit":
            self._submit(transport, s, self._random.randint(1, 9))
        elif deed == "again" and s.last is not None:
            # A new key: it is the steps themselves that are known already.
            again = self._ask(transport, "submit_transitions", s.id, s.last)
            assert again.stored == 0, f"{again.stored} steps were stored twice"
        elif deed == "adapt":
            self._adapt(transport, s)
        elif deed == "fine_tune":
            if self._random.random() < 0.6:
                s.operation = self._ask(transport, "finetune", s.id, self._random.choice((4, 30)), 0).id
                self._until_final(transport, s.operation)
            else:
                self._long_fine_tune(transport, s)
        elif deed == "cancel" and s.operation is not None:
            self._ask(transport, "cancel_operation", s.id, s.operation)
        elif deed in ("pause", "resume"):
            self._ask(transport, deed, s.id)
        elif deed == "act":
            transport.act(s.id, OBSERVATION, MEAN, CALL_S)
        elif deed == "promote":
            self._decide(transport, s, "promote", 1 if transport.get_session(s.id, CALL_S).active_version != 1 else 2)
        elif deed == "roll_back":
            self._decide(transport, s, "roll_back")
        elif deed == "pin" and not s.pinned:
            self._decide(transport, s, "pin", None)
            s.pinned = True
        elif deed == "unpin" and s.pinned:
            self._decide(transport, s, "unpin")
            s.pinned = False
        elif deed == "move":
            self._move(transport)
        elif deed == "follow":
            self._follow(transport)

    def _long_fine_tune(self, transport: Transport, s: _Session) -> None:
        """Long enough for saves and renewals of the lease; ended by hand."""
        s.operation = self._ask(transport, "finetune", s.id, LONG_UPDATES, 0).id
        self._until_saved(transport, s.operation)
        if self._random.random() < 0.5:
            self._ask(transport, "pause", s.id)
            self._ask(transport, "resume", s.id)
        self._ask(transport, "cancel_operation", s.id, s.operation)

    def _move(self, transport: Transport) -> None:
        """In a session of its own, which is deleted at once: a rollback would count contexts across checkpoints."""
        self._number += 1
        created = self._ask(transport, "create_session", "", REWARD, self._number, None)
        self._decide(transport, _Session(created.id), "move", SECOND)
        self._ask(transport, "delete_session", created.id)

    def _follow(self, transport: Transport) -> None:
        """In a session of its own, which is deleted at once: nobody asks for the contexts that it gets."""
        self._number += 1
        s = _Session(self._ask(transport, "create_session", "", REWARD, self._number, None).id)
        self._ask(transport, "set_mode", s.id, SessionMode.CONTEXT)
        self._submit(transport, s, 25)
        until_s = time.monotonic() + CALL_S
        while not transport.get_session(s.id, CALL_S).model_context.number:
            assert time.monotonic() < until_s, "what is stored is not followed"
            time.sleep(0.01)
        self._ask(transport, "delete_session", s.id)

    def _submit(self, transport: Transport, s: _Session, count: int) -> None:
        s.last = batch(count, seed=self._random.randrange(1 << 30), episode=s.episodes)
        s.episodes += 1
        self._ask(transport, "submit_transitions", s.id, s.last)

    def _adapt(self, transport: Transport, s: _Session) -> None:
        self._ask(transport, "adapt", s.id, _RECENT)

    def _decide(self, transport: Transport, s: _Session, call: str, *arguments: Any) -> None:
        self._number += 1
        self._ask(transport, call, s.id, *arguments, f"decision {self._number}")

    def _until_saved(self, transport: Transport, operation: str) -> None:
        for seen in transport.watch_operation(operation, CALL_S):
            if seen.updates_done >= 60:
                return

    def _until_final(self, transport: Transport, operation: str) -> None:
        for _ in transport.watch_operation(operation, CALL_S):
            pass

    def _ask(self, transport: Transport, call: str, session: str, *arguments: Any) -> Any:
        ask = self._ledger.add(Ask(call, session, arguments, over=self._over))
        reply = ask.run(transport)
        self._ledger.acknowledged(ask)
        return reply


def observe(transport: Transport, session: str) -> tuple[int, str]:
    """The version that acts, and the hash of its weights."""
    acted = transport.act(session, np.asarray(OBSERVATION), MEAN, CALL_S)
    return acted.policy_version, acted.weights_hash
