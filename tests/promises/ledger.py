"""What clients asked of the service and what it acknowledged; and the comparison with what its store holds.

An ask is *open* until an answer came: acknowledged, or refused for a reason that another try would not change. What is
open may have been done or not; `settle` asks again under the same key, after which everything is one or the other, and
the store must hold each acknowledged thing exactly once.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection

from mier_client.errors import DeadlineExceeded, MierError, ServerFault, Unavailable
from mier_client.transport import TransitionBatch, Transport
from mier_client.values import Adapted, Submitted
from mier_service.data.files import DamagedFile
from mier_service.data.layout import Kind, content_files
from tests.contract import usage
from tests.contract.helpers import CALL_S
from tests.stores import found_rows, reading

LONG_UPDATES = 4000
UNANSWERED = (Unavailable, DeadlineExceeded, ServerFault)


@dataclass
class Ask:
    """One write call."""

    call: str
    """Name of the transport's method."""
    session: str
    """Empty: a session is to be created."""
    arguments: tuple[Any, ...]
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    over: str = ""
    """The transport."""
    reply: Any = None
    refusal: str | None = None
    closed: bool = False

    @property
    def done(self) -> bool:
        """Acknowledged."""
        return self.closed and self.refusal is None

    def send(self, transport: Transport) -> Any:
        target = () if not self.session else (self.session,)
        if self.call == "cancel_operation":
            target = ()
        return getattr(transport, self.call)(*target, *self.arguments, self.key, CALL_S)

    def run(self, transport: Transport) -> Any:
        """Sends it and writes down what came. Raises if nothing did."""
        try:
            self.reply = self.send(transport)
        except UNANSWERED as error:
            if error.reason in ("INTERNAL", "FINE_TUNE_FAILED"):
                raise AssertionError(f"{self.call}: {error}") from error
            raise
        except MierError as error:
            self.refusal = error.reason
            self.closed = True
            raise
        self.closed = True
        return self.reply


@dataclass
class Ledger:
    """Of all robots; they append from threads of their own."""

    asks: list[Ask] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """Sessions whose delete was acknowledged."""
    tally: Counter[str] = field(default_factory=Counter)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, ask: Ask) -> Ask:
        with self.changed:
            self.asks.append(ask)
            self.changed.notify_all()
        return ask

    def acknowledged(self, ask: Ask) -> None:
        with self.changed:
            self.tally["acknowledged"] += 1
            if ask.call == "delete_session":
                self.gone.append(ask.session)
            self.tally[f"{ask.over} {ask.call}"] += 1
            self.changed.notify_all()

    def settle(self, transports: dict[str, Transport]) -> None:
        """Everything whose answer was lost is asked again, over the other transport; and once more, over the first:
        the same reply."""
        for ask in [ask for ask in self.asks if not ask.closed]:
            first = transports[ask.over]
            other = transports["grpc" if ask.over == "http" else "http"]
            try:
                ask.run(other)
            except MierError:
                if not ask.closed:
                    raise
                self.tally["open ones refused"] += 1
                continue
            self.tally["answers lost"] += 1
            self._require_same(ask, ask.send(first))
            self.acknowledged(ask)

    def repeat(self, transports: dict[str, Transport], count: int) -> None:
        """The newest acknowledged asks are sent once more: each gets the reply that it had."""
        for ask in [ask for ask in self.asks if ask.done][-count:]:
            transport = transports["grpc" if ask.over == "http" else "http"]
            self._require_same(ask, ask.send(transport))
            self.tally["repeated"] += 1

    def _require_same(self, ask: Ask, again: Any) -> None:
        assert text(again) == text(ask.reply), f"{ask.call} was answered {ask.reply}, and again {again}"

    def forget(self, session: str) -> None:
        """A deleted session that was looked for once need not be looked for again."""
        self.asks = [ask for ask in self.asks if ask.session != session and _created(ask) != session]


def text(value: Any) -> str:
    """A reply as text that two equal replies share, whichever transport brought them."""
    if isinstance(value, np.ndarray):
        return str(value.tolist())
    if isinstance(value, dict):
        return str(sorted((key, text(item)) for key, item in value.items()))
    if is_dataclass(value):
        return str([(item.name, text(getattr(value, item.name))) for item in fields(value)])
    return repr(value)


def _created(ask: Ask) -> str | None:
    return ask.reply.id if ask.call == "create_session" and ask.reply is not None else None


def _follows(asks: list[Ask]) -> bool:
    """Whether its context may move by itself."""
    return any(ask.call == "set_mode" for ask in asks)


class Books:
    """The ledger beside the store."""

    def __init__(self, ledger: Ledger, data: Path, store_url: str | None = None) -> None:
        self._ledger = ledger
        self._data = data
        self._store_url = store_url

    def compare(self, exact: bool) -> None:
        """Nothing acknowledged is missing, nothing is there twice; `exact`: and nothing else is there.

        `exact` holds once everything is settled."""
        with self._read() as c:
            self._sound(c)
            for session, asks in self._by_session().items():
                self._session(c, session, asks, exact)
            deleting = {ask.session for ask in self._ledger.asks if ask.call == "delete_session"}
            for ask in self._ledger.asks:
                if ask.call == "create_session":
                    found = [
                        row[0] for row in found_rows(c, "SELECT id FROM sessions WHERE seed = ?", ask.arguments[1])
                    ]
                    assert len(found) <= 1, f"{len(found)} sessions came of one create"
                    if ask.done and ask.reply.id not in deleting:
                        assert found == [ask.reply.id], f"an acknowledged session is lost: {ask.reply.id}"
            for gone in self._ledger.gone:
                assert not found_rows(c, "SELECT 1 FROM sessions WHERE id = ?", gone), "an acknowledged delete is lost"
            for gone in self._ledger.gone:
                for table in ("transition_batches", "versions", "model_contexts", "operations", "promotions"):
                    assert not found_rows(c, f"SELECT 1 FROM {table} WHERE session_id = ? LIMIT 1", gone), table
        for gone in self._ledger.gone:
            self._ledger.forget(gone)
        self._ledger.gone.clear()

    def _by_session(self) -> dict[str, list[Ask]]:
        found: dict[str, list[Ask]] = {}
        for ask in self._ledger.asks:
            if (session := _created(ask)) is not None:
                found.setdefault(session, [])
            elif ask.session:
                found.setdefault(ask.session, []).append(ask)
        return {
            session: asks
            for session, asks in found.items()
            if session not in self._ledger.gone and not any(ask.call == "delete_session" for ask in asks)
        }

    def _session(self, c: Connection, session: str, asks: list[Ask], exact: bool) -> None:
        (row,) = found_rows(c, "SELECT transitions_count, active_version FROM sessions WHERE id = ?", session)
        self._transitions(c, session, asks, row[0], exact)
        done = [ask for ask in asks if ask.done]
        adapted = {ask.reply.model_context.number: ask.reply for ask in done if ask.call == "adapt"}
        assert len(adapted) == sum(ask.call == "adapt" for ask in done), "two adaptations share a model context"
        contexts = dict(found_rows(c, "SELECT number, context FROM model_contexts WHERE session_id = ?", session))
        for number, reply in adapted.items():
            assert contexts[number] == reply.model_context.values.astype("<f4").tobytes(), f"context {number} differs"
        operations = {ask.reply.id: ask for ask in done if ask.call == "finetune"}
        stored = dict(found_rows(c, "SELECT id, state FROM operations WHERE session_id = ?", session))
        assert operations.keys() <= stored.keys(), "an acknowledged fine-tune is lost"
        moved = sum(ask.call == "move" for ask in done)
        if exact and not _follows(asks):
            assert len(contexts) == 1 + len(adapted) + moved, f"{len(contexts)} contexts, {len(adapted)} adaptations"
        if exact:
            assert operations.keys() == stored.keys(), "a fine-tune is doubled"
        for ask in asks:
            if ask.call in ("promote", "roll_back", "pin", "unpin", "move"):
                (count,) = found_rows(c, "SELECT count(*) FROM promotions WHERE reason = ?", ask.arguments[-1])[0]
                assert count <= 1, f"{ask.call} was done {count} times"
                assert count == 1 or not ask.done, f"an acknowledged {ask.call} is lost"
                assert ask.refusal is None or count == 0, f"{ask.call} was refused and done"
        for ask in done:
            if ask.call == "cancel_operation":
                query = "SELECT cancel_requested FROM operations WHERE id = ? AND state IN ('queued', 'running')"
                assert found_rows(c, query, ask.arguments[0]) in ([], [(1,)]), "an acknowledged cancel is lost"
        states = [ask for ask in asks if ask.call in ("pause", "resume")]
        if states and states[-1].reply is not None:
            (state,) = found_rows(c, "SELECT state FROM sessions WHERE id = ?", session)[0]
            assert state == states[-1].reply.state.value, f"{states[-1].call} is lost"
        self._versions(c, session, adapted, exact)

    def _transitions(self, c: Connection, session: str, asks: list[Ask], counted: int, exact: bool) -> None:
        stored: dict[tuple[int, int], bytes] = {}
        query = "SELECT episode, first_step, count, rows FROM transition_batches WHERE session_id = ?"
        for episode, first, count, rows in found_rows(c, query, session):
            width = len(rows) // count
            for i in range(count):
                assert (episode, first + i) not in stored, f"step {first + i} of episode {episode} is there twice"
                stored[episode, first + i] = rows[i * width : (i + 1) * width]
        assert counted == len(stored), f"{counted} counted, {len(stored)} stored"
        acknowledged: set[tuple[int, int]] = set()
        for ask in asks:
            if ask.call == "submit_transitions" and isinstance(ask.reply, Submitted):
                for step, row in _rows(ask.arguments[0]):
                    assert stored.get(step) == row, f"an acknowledged step is lost: {step}"
                    acknowledged.add(step)
        if exact:
            assert stored.keys() == acknowledged, f"{len(stored)} steps, {len(acknowledged)} acknowledged"
        self._ledger.tally["steps compared"] += len(acknowledged)

    def _versions(self, c: Connection, session: str, adapted: dict[int, Adapted], exact: bool) -> None:
        query = "SELECT number, operation_id, origin FROM versions WHERE session_id = ? ORDER BY number"
        versions = found_rows(c, query, session)
        assert [row[0] for row in versions] == list(range(1, len(versions) + 1))
        published_by = sorted((row[1], row[0]) for row in versions if row[1])
        query = "SELECT id, result_version FROM operations WHERE session_id = ? AND state = 'succeeded' ORDER BY id"
        succeeded = found_rows(c, query, session)
        assert published_by == succeeded, f"operations {succeeded}, versions {published_by}"
        for number in (reply.active_version.number for reply in adapted.values() if reply.published):
            assert versions[number - 1][2] == "adapt", f"version {number} of an adaptation is lost"
        if exact:
            published = sum(reply.published for reply in adapted.values())
            assert sum(row[2] == "adapt" for row in versions) >= published

    def _sound(self, c: Connection) -> None:
        """The store itself: whole, and every version complete, its files verified by hash."""
        if self._store_url is None:
            assert found_rows(c, "PRAGMA quick_check") == [("ok",)]
            assert found_rows(c, "PRAGMA foreign_key_check") == []
        weights, onnx, saves = (content_files(self._data, kind) for kind in (Kind.WEIGHTS, Kind.POLICIES, Kind.SAVES))
        for origin, weights_hash, onnx_hash in found_rows(
            c, "SELECT DISTINCT origin, weights_hash, onnx_hash FROM versions"
        ):
            onnx.get(onnx_hash)
            if origin == "fine_tune":
                weights.get(weights_hash)
        given_up = "SELECT id, error_json FROM operations WHERE state = 'failed' AND attempts_without_progress <= 3"
        assert found_rows(c, given_up) == [], "a fine-tune failed that was not killed too often"
        unfinished = "save_hash IS NOT NULL AND state IN ('queued', 'running')"
        for (save_hash,) in found_rows(c, f"SELECT save_hash FROM operations WHERE {unfinished}"):
            # A worker that goes on meanwhile may have replaced it since.
            try:
                saves.get(save_hash)
            except DamagedFile:
                query = f"SELECT 1 FROM operations WHERE {unfinished} AND save_hash = ?"
                with self._read() as now:
                    assert not found_rows(now, query, save_hash), f"save {save_hash} is named and missing"
        active = """SELECT s.id, s.active_version, p.to_version FROM sessions s LEFT JOIN versions v
            ON v.session_id = s.id AND v.number = s.active_version LEFT JOIN promotions p
            ON p.row = (SELECT max(row) FROM promotions WHERE session_id = s.id)
            WHERE v.number IS NULL OR p.row IS NULL OR p.to_version <> s.active_version"""
        assert found_rows(c, active) == [], "what acts is not what was promoted last"
        counted, stored = usage.counted(c), usage.stored(c, self._data)
        wrong = {name: (counted.get(name), stored.get(name)) for name in counted.keys() | stored.keys()}
        wrong = {name: pair for name, pair in wrong.items() if pair[0] != pair[1]}
        assert not wrong, f"what keys have stored is counted wrong: {wrong}"

    def _read(self) -> AbstractContextManager[Connection]:
        return reading(self._data, self._store_url)

    def long_operations(self) -> list[tuple[str, str]]:
        """(session, operation) of what would keep the only worker for long."""
        with self._read() as c:
            query = "SELECT session_id, id FROM operations WHERE state IN ('queued', 'running') AND updates_total > ?"
            return found_rows(c, query, LONG_UPDATES // 2)

    def acting(self, transports: dict[str, Transport], observe: Callable[[Transport, str], tuple[int, str]]) -> None:
        """Every session acts with the version and the weights that the store names."""
        with self._read() as c:
            query = """SELECT s.id, v.number, v.weights_hash FROM sessions s JOIN versions v
                ON v.session_id = s.id AND v.number = s.active_version ORDER BY s.row DESC LIMIT 6"""
            rows = found_rows(c, query)
        for i, (session, number, weights_hash) in enumerate(rows):
            acted = observe(transports["http" if i % 2 else "grpc"], session)
            with self._read() as c:  # a fine-tune may have ended in between
                since = found_rows(c, "SELECT active_version FROM sessions WHERE id = ?", session)[0][0]
            assert acted == (number, weights_hash) or acted[0] == since, f"{acted}, active {number}"


def _rows(batch: TransitionBatch) -> Iterator[tuple[tuple[int, int], bytes]]:
    columns = (
        batch.observation,
        batch.action,
        batch.reward[:, None],
        batch.next_observation,
        batch.terminated[:, None],
        batch.truncated[:, None],
    )
    rows = np.concatenate([np.asarray(column, "<f4") for column in columns], 1)
    for i, row in enumerate(rows):
        yield (batch.episode, batch.first_step + i), row.astype("<f4").tobytes()
