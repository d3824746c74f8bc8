"""What one key may take: each bound over both transports, refused alike, while other keys go on; and a real client
that meets one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.message import Message

from mier_client import Client, Overloaded, QuotaExceeded, Retrier
from mier_client.transport import Transport
from mier_client.values import OperationState, Session
from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_service.access.keys import Scope
from mier_service.errors import Reason
from tests.contract import refusals, tiny
from tests.contract.conftest import REWARD, connect
from tests.contract.every_call import SERVICE
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, refused, rows, submit
from tests.contract.keys import bearer, make_key, migrate, wait_until
from tests.contract.server import Server, serving

CALLS, SESSIONS, FINE_TUNES, STORED_BYTES = 8, 3, 2, 60_000
KINDS = ("http", "grpc")


@pytest.fixture(scope="module")
def bounded(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Nothing is fine-tuned, so what is asked for waits."""
    data = tmp_path_factory.mktemp("bounded") / "data"
    migrate(data)
    flags = {
        "--keys": "required",
        "--max-calls-per-key": CALLS,
        "--max-sessions-per-key": SESSIONS,
        "--max-finetunes-per-key": FINE_TUNES,
        "--max-stored-bytes-per-key": STORED_BYTES,
        "--finetune-workers": 0,
        "--adapt-queue": 6,
        "--max-batch-steps": 500,
        "--max-act-batch": 20,
        "--drain-within-s": 3,
    }
    with serving(checkpoints, data, *(str(word) for pair in flags.items() for word in pair)) as running:
        yield running


@dataclass
class Holder:
    """Somebody with a key of its own."""

    server: Server
    key: str = ""
    by: dict[str, Transport] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = make_key(self.server.data, Scope.ADMIN)
        wait_until(self.server.http, self.key, good=True)
        self.by = {kind: connect(self.server, kind, self.key) for kind in KINDS}

    def close(self) -> None:
        for transport in self.by.values():
            transport.close()

    def client(self, kind: str, retrier: Retrier | None = None) -> Client:
        url = self.server.http if kind == "http" else f"grpc://{self.server.grpc}"
        return Client.connect(url, retrier=retrier, api_key=self.key)

    def refusal(self, path: str, body: dict[str, Any], method: str, message: Message) -> refusals.Refusal:
        """Of the same call over both transports, without any client of ours: the same."""
        with httpx.Client(base_url=self.server.http, timeout=CALL_S, trust_env=False) as http:
            response = http.post(path, json=body, headers=bearer(self.key))
        over_http = refusals.of_problem(response.status_code, response.headers, response.json())
        metadata = [("authorization", f"Bearer {self.key}")]
        with grpc.insecure_channel(self.server.grpc) as channel:
            call: Any = channel.unary_unary(f"/{SERVICE.full_name}/{method}", None, None)
            with pytest.raises(grpc.RpcError) as told:
                call(message.SerializeToString(), metadata=metadata, timeout=CALL_S)
        assert refusals.of_rpc(told.value) == over_http
        return over_http


@pytest.fixture
def greedy(bounded: Server) -> Iterator[Holder]:
    with closing(Holder(bounded)) as made:
        yield made


@pytest.fixture
def modest(bounded: Server) -> Iterator[Holder]:
    with closing(Holder(bounded)) as made:
        yield made


def create(transport: Transport) -> Session:
    return transport.create_session(REWARD, 7, None, "", CALL_S)


def learned(transport: Transport) -> Session:
    """A session that can be fine-tuned."""
    session = create(transport)
    submit(transport, session, batch(40))
    return session


@pytest.mark.parametrize("kind", KINDS)
def test_sessions(greedy: Holder, modest: Holder, kind: str) -> None:
    """Broken on purpose: without the look in `Sessions._create` the fourth is made; counted over all keys, the other
    key is refused."""
    transport = greedy.by[kind]
    first, *_ = [create(transport) for _ in range(SESSIONS)]
    told = greedy.refusal(
        "/sessions", {"checkpoint": REWARD}, "CreateSession", pb.CreateSessionRequest(checkpoint=REWARD)
    )
    assert (told.reason, told.retry_after_s) == (Reason.TOO_MANY_SESSIONS, 60)
    assert "opened 3 sessions" in told.detail
    create(modest.by[kind])
    transport.delete_session(first.id, "", CALL_S)
    create(transport)
    with refused("TOO_MANY_SESSIONS", "at most 3"):
        create(transport)


@pytest.mark.parametrize("kind", KINDS)
def test_fine_tunes(greedy: Holder, modest: Holder, kind: str) -> None:
    """Broken on purpose: without the look in `Learning._require_room` the third is queued."""
    transport = greedy.by[kind]
    sessions = [learned(transport) for _ in range(SESSIONS)]
    first, _ = [transport.finetune(session.id, 30, 0, "", CALL_S) for session in sessions[:FINE_TUNES]]
    third = sessions[2].id
    told = greedy.refusal("/finetune", {"session_id": third}, "FineTune", pb.FineTuneRequest(session_id=third))
    assert (told.reason, told.retry_after_s) == (Reason.TOO_MANY_FINE_TUNES, 10)
    other = modest.by[kind]
    assert other.finetune(learned(other).id, 30, 0, "", CALL_S).state is OperationState.QUEUED
    transport.cancel_operation(first.id, "", CALL_S)
    assert transport.finetune(third, 30, 0, "", CALL_S).state is OperationState.QUEUED


@pytest.mark.parametrize("kind", KINDS)
def test_stored_bytes(greedy: Holder, modest: Holder, kind: str) -> None:
    """What was refused left nothing; what is there acts, can be paused and rolled back, and deleting it makes room.

    Broken on purpose: without the look in `Storage.once` it is stored; without `give_back` there is no room after the
    delete; with less room for decisions, the pause is refused."""
    transport, other = greedy.by[kind], modest.by[kind]
    session = create(transport)
    count = 0
    with refused("TOO_MUCH_STORED", "at most 60000"):
        for episode in range(100):
            count = submit(transport, session, batch(100, episode=episode)).transitions_count
    assert 700 <= count == transport.get_session(session.id, CALL_S).transitions_count
    steps: dict[str, Any] = {"session_id": session.id, "episode": 777, "first_step": 0, "policy_version": [1]}
    arrays = tiny.arrays(100, 3)
    encoded = steps | {name: encode(array) for name, array in arrays.items()}
    body = steps | {name: array.tolist() for name, array in arrays.items()}
    told = greedy.refusal("/transitions", body, "SubmitTransitions", pb.SubmitTransitionsRequest(**encoded))
    assert (told.reason, told.retry_after_s) == (Reason.TOO_MUCH_STORED, 60)

    assert submit(transport, session, batch(100, episode=0)).duplicates == 100  # a retry stores nothing
    assert transport.act(session.id, OBSERVATION, MEAN, CALL_S).policy_version == 1
    assert transport.pause(session.id, "k" * 200 + session.id, CALL_S).active_version == 1
    transport.resume(session.id, "", CALL_S)
    transport.pin(session.id, None, "as it was", "", CALL_S)
    # Another key's own steps count for that key, also where the session is not its own.
    assert submit(other, session, batch(100, episode=500)).stored == 100
    assert submit(other, create(other), batch(100)).stored == 100
    transport.delete_session(session.id, "", CALL_S)
    fresh = create(transport)
    assert submit(transport, fresh, batch(500)).stored == 500
    assert submit(other, fresh, batch(500, episode=1)).stored == 500


@contextmanager
def held(holder: Holder, session: Session, count: int) -> Iterator[list[Callable[[], None]]]:
    """So many calls under way, over both transports: what ends each."""
    with ExitStack() as stack:
        ends = []
        for number in range(count):
            one = stack.enter_context(ExitStack())
            ends.append(one.close)
            if number % 2:
                stream = holder.by["grpc"].open_act_stream()
                one.callback(stream.close)
                stream.act(session.id, OBSERVATION, MEAN, CALL_S)
            else:
                operation = holder.by["http"].watch_operation(_waiting(holder, session), 60.0)
                one.callback(operation.close)  # type: ignore[attr-defined]
                next(operation)
        yield ends


def _waiting(holder: Holder, session: Session) -> str:
    """A fine-tune of the session, the same each time, which no worker takes."""
    key = f"waiting-{session.id}"
    return holder.by["grpc"].finetune(session.id, 30, 0, key, CALL_S).id


@pytest.mark.parametrize("kind", KINDS)
def test_calls_under_way(greedy: Holder, modest: Holder, kind: str) -> None:
    """Half of them are open over HTTP and half over gRPC, and the client that comes next waits as it is told, and is
    answered.

    Broken on purpose: counted in one transport alone, or not given back when a stream ends, and one of these fails."""
    session, others = learned(greedy.by[kind]), learned(modest.by[kind])
    pauses: list[float] = []
    _waiting(greedy, session)
    with held(greedy, session, CALLS) as ends:
        act = {"session_id": session.id, "observation": OBSERVATION.tolist(), "deterministic": True}
        message = pb.ActRequest(session_id=session.id, observation=encode(OBSERVATION), deterministic=True)
        told = greedy.refusal("/act", act, "Act", message)
        assert (told.reason, told.retry_after_s) == (Reason.TOO_MANY_CALLS, 1)
        assert modest.by[kind].act(others.id, OBSERVATION, MEAN, CALL_S).policy_version == 1
        with httpx.Client(base_url=greedy.server.http, trust_env=False) as http:
            assert http.get("/readyz").status_code == 200

        def pause(pause_s: float) -> None:
            pauses.append(pause_s)
            if ends:
                ends.pop(0)()

        with greedy.client(kind, Retrier(sleep=pause)) as client:
            acted = client.act(session.id, OBSERVATION, deterministic=True, timeout_s=CALL_S)
    assert acted.policy_version == 1
    assert set(pauses) == {1.0}


def test_calls_without_their_message_are_under_way(greedy: Holder, modest: Holder) -> None:
    """Broken on purpose: with the place taken once the message is there, they are nobody's, and fill the service's
    own bound."""
    session, others = learned(greedy.by["grpc"]), learned(modest.by["grpc"])
    never: SimpleQueue[bytes | None] = SimpleQueue()
    with grpc.insecure_channel(greedy.server.grpc) as channel:
        call: Any = channel.stream_unary(f"/{SERVICE.full_name}/Act", None, None)
        open_calls = [
            call.future(iter(never.get, None), metadata=[("authorization", f"Bearer {greedy.key}")], timeout=CALL_S)
            for _ in range(CALLS)
        ]
        with refused("TOO_MANY_CALLS", str(CALLS)):
            for _ in range(10_000):  # until all of them have arrived
                greedy.by["grpc"].act(session.id, OBSERVATION, MEAN, CALL_S)
        assert modest.by["grpc"].act(others.id, OBSERVATION, MEAN, CALL_S).policy_version == 1
        for _ in open_calls:
            never.put(None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_of_slow_calls_leaves_room(greedy: Holder, modest: Holder, kind: str) -> None:
    """One thread adapts and six calls may wait. One key asks for more than that all the time; another is always let in.

    Broken on purpose: where one caller may fill the whole queue, the other is refused as OVERLOADED."""
    session, others = learned(greedy.by[kind]), learned(modest.by[kind])
    over, told = threading.Event(), threading.Event()

    def flood() -> None:
        with closing(connect(greedy.server, kind, greedy.key)) as transport:
            while not over.is_set():
                try:
                    transport.adapt(session.id, ALL, "", CALL_S)
                except Overloaded:
                    told.set()

    threads = [threading.Thread(target=flood) for _ in range(CALLS)]
    for thread in threads:
        thread.start()
    try:
        assert told.wait(CALL_S)
        for _ in range(5):
            assert modest.by[kind].adapt(others.id, ALL, "", CALL_S).published
            assert modest.by[kind].act(others.id, OBSERVATION, MEAN, CALL_S).policy_version > 1
    finally:
        over.set()
        for thread in threads:
            thread.join(CALL_S)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_would_wait_too_long_is_told_at_once(greedy: Holder, kind: str) -> None:
    """The pause is a minute, the deadline less. Broken on purpose: without Retry-After it is tried again at once."""
    pauses: list[float] = []
    with greedy.client(kind, Retrier(sleep=pauses.append)) as client:
        for _ in range(SESSIONS):
            client.create_session(REWARD)
        with pytest.raises(QuotaExceeded, match="TOO_MANY_SESSIONS") as told:
            client.create_session(REWARD)
    assert told.value.problem.retry_after_s == 60.0
    assert told.value.type == "urn:problem-type:mier:too-many-sessions"
    assert pauses == []


@pytest.mark.parametrize("kind", KINDS)
def test_batches(greedy: Holder, kind: str) -> None:
    """As the operator set them; refused as a mistake of the request, since the same batch is never taken."""
    transport = greedy.by[kind]
    session = create(transport)
    whole = batch(501)
    with refused("INVALID_ARGUMENT", "at most 500", "got 501"):
        submit(transport, session, whole)
    assert submit(transport, session, rows(whole, 0, 500)).stored == 500
    act = {"session_id": session.id, "observation": OBSERVATION.tolist(), "deterministic": True}
    message = pb.ActRequest(session_id=session.id, observation=encode(OBSERVATION), deterministic=True)
    told = greedy.refusal(
        "/act/batch", {"requests": [act] * 21}, "ActBatch", pb.ActBatchRequest(requests=[message] * 21)
    )
    assert told.reason is Reason.INVALID_ARGUMENT
    assert "1 to 20" in told.detail


def test_where_nobody_is_asked_for_a_key_all_are_one_caller(checkpoints: Path, tmp_path: Path) -> None:
    with serving(checkpoints, tmp_path / "data", "--max-sessions-per-key", "2", "--finetune-workers", "0") as server:
        http, rpc = connect(server, "http"), connect(server, "grpc")
        create(http)
        create(rpc)
        for transport in (http, rpc):
            with refused("TOO_MANY_SESSIONS", "at most 2"):
                create(transport)
            transport.close()
