"""A client of the first release against this service, on a session with all that came later: it reads every reply.

Its messages are built from the schema that it was released with, its JSON is what was recorded then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from mier_client import grpc_codec, http_codec
from mier_client.transport import Transport
from mier_client.values import Promotion, PromotionKind, Session, VersionOrigin
from mier_proto import convert
from mier_proto.v1 import adaptation_pb2 as pb
from tests.contract import releases
from tests.contract.conftest import REWARD
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, fine_tune, submit
from tests.contract.server import Server

PACKAGE = "mier_proto.v1"
SERVICE = f"{PACKAGE}.AdaptationService"


def _first_release() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet.FromString((releases.FOLDER / "adaptation.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


POOL = _first_release()


def old(name: str, **fields: Any) -> Any:
    """A message of the first release."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))(**fields)


class OldClient:
    """Its calls, by name; a stream is read to its end."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)

    def call(self, method: str, **fields: Any) -> Any:
        found = POOL.FindServiceByName(SERVICE).methods_by_name[method]
        reply = message_factory.GetMessageClass(found.output_type)
        kind = self._channel.unary_stream if found.server_streaming else self._channel.unary_unary
        asking = kind(
            f"/{SERVICE}/{method}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        answer = asking(old(f"{method}Request", **fields), timeout=CALL_S)
        return list(answer) if found.server_streaming else answer

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def client(server: Server) -> Iterator[OldClient]:
    made = OldClient(server.grpc)
    yield made
    made.close()


@pytest.fixture
def eventful(transport: Transport, session: Session) -> Session:
    """It was adapted, fine-tuned, rolled back and pinned, and a version was published that does not act."""
    submit(transport, session, batch(40))
    transport.adapt(session.id, ALL, "", CALL_S)
    fine_tune(transport, session, updates=5)
    transport.roll_back(session.id, "r", "", CALL_S)
    transport.pin(session.id, None, "p", "", CALL_S)
    fine_tune(transport, session, updates=5)
    return session


def require_understood(message: Message) -> None:
    """Every number of an enum has a name in the release that reads it."""
    for field, value in message.ListFields():
        for item in value if field.is_repeated and not field.message_type else [value]:
            if field.enum_type is not None:
                assert item in field.enum_type.values_by_number, (field.full_name, item)
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                require_understood(inner)


def test_grpc_replies_are_understood(client: OldClient, eventful: Session, transport: Transport) -> None:
    """Broken on purpose: with a number of its own in `Promotion` for what a pin keeps from acting, the old client meets
    a name that it does not know."""
    got = client.call("GetSession", session_id=eventful.id).session
    assert (got.id, got.active_version, got.transitions_count) == (eventful.id, 2, 40)
    versions = client.call("ListVersions", session_id=eventful.id)
    assert [v.number for v in versions.versions] == [1, 2, 3, 4]
    for reply in (got, versions, client.call("ListSessions", page_size=1000)):
        require_understood(reply)
    acted = client.call(
        "Act",
        session_id=eventful.id,
        observation=old("Tensor", shape=[4], data=OBSERVATION.tobytes()),
        deterministic=True,
    )
    mine = transport.act(eventful.id, OBSERVATION, MEAN, CALL_S)
    assert (acted.policy_version, acted.action.data) == (2, mine.action.tobytes())


def test_grpc_calls_do_what_they_did(client: OldClient) -> None:
    session = client.call("CreateSession", checkpoint=REWARD, seed=7, idempotency_key="").session
    steps = batch(40)
    arrays = {
        name: old("Tensor", shape=array.shape, data=array.tobytes())
        for name in ("observation", "action", "reward", "next_observation")
        for array in [convert.decode(convert.encode(getattr(steps, name)), name)]
    }
    stored = client.call(
        "SubmitTransitions", session_id=session.id, episode=0, first_step=0, policy_version=[1], **arrays
    )
    assert stored.transitions_count == 40
    found = client.call("Adapt", session_id=session.id)
    assert (found.published, found.active_version.number) == (True, 2)
    operation = client.call("FineTune", session_id=session.id, updates=5).operation
    *_, last = client.call("WatchOperation", operation_id=operation.id)
    assert last.operation.result_version == 3
    require_understood(last)
    assert client.call("PauseSession", session_id=session.id).session.active_version == 3
    client.call("ResumeSession", session_id=session.id)
    client.call("DeleteSession", session_id=session.id)


def test_http_replies_read_as_they_did(http: httpx.Client, eventful: Session) -> None:
    """The recorded requests, for this session. Broken on purpose: with `create_time` renamed in a version, the old
    client misses it."""
    asked = 0
    for exchange in releases.EXCHANGES:
        if exchange.path.startswith("/operations/") or exchange.method == "DELETE":
            continue
        sent = json.dumps(exchange.body).replace(releases.SESSION, eventful.id)
        reply = http.request(
            exchange.method,
            exchange.path.replace(releases.SESSION, eventful.id),
            content=sent if exchange.body is not None else b"",
            headers={"Content-Type": "application/json"},
        )
        if reply.status_code == 409 and reply.json()["reason"] == "OPERATION_IN_PROGRESS":
            continue
        assert reply.status_code == exchange.status, (exchange.path, reply.text)
        read = reply.json()
        if exchange.method == "GET" and exchange.path == "/sessions":
            read["sessions"] = [item for item in read["sessions"] if item["id"] == eventful.id]
        assert releases.reads_alike(read, exchange.reply), (exchange.path, reply.text)
        if exchange.path == "/finetune":
            http.post(f"/operations/{reply.json()['id']}/cancel")
        asked += 1
    assert asked > 12


def test_the_schema_only_grew() -> None:
    """Every call, message, field and number of the first release is there, of the same kind. Broken on purpose: with
    `Session.seed` renumbered, it is named."""
    present = pb.DESCRIPTOR
    then = POOL.FindFileByName(present.name)
    for name, message in then.message_types_by_name.items():
        _require_grown(message, present.message_types_by_name[name])
    for name, enum in then.enum_types_by_name.items():
        now = present.enum_types_by_name[name].values_by_name
        assert {v.name: v.number for v in enum.values}.items() <= {v: now[v].number for v in now}.items()
    calls = present.services_by_name["AdaptationService"].methods_by_name
    for name, method in then.services_by_name["AdaptationService"].methods_by_name.items():
        assert _call(calls[name]) == _call(method)


def _require_grown(then: Descriptor, now: Descriptor) -> None:
    for field in then.fields:
        assert field.name in now.fields_by_name, field.full_name
        assert _field(now.fields_by_name[field.name]) == _field(field), field.full_name


def _field(field: FieldDescriptor) -> tuple[object, ...]:
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.number, field.type, field.is_repeated, kind.full_name if kind else None, oneof


def _call(method: Any) -> tuple[object, ...]:
    return (
        method.input_type.full_name,
        method.output_type.full_name,
        method.client_streaming,
        method.server_streaming,
    )


def test_this_client_reads_the_first_release() -> None:
    """The other way round: replies without what came later."""
    replies = {exchange.path: exchange.reply for exchange in releases.EXCHANGES if exchange.method == "GET"}
    session = http_codec.session(replies[f"/sessions/{releases.SESSION}"])
    assert (session.active_version, session.pinned) == (3, False)
    versions = [http_codec.policy_version(v) for v in replies[f"/sessions/{releases.SESSION}/versions"]["versions"]]
    assert [(v.number, v.checkpoint) for v in versions] == [(1, ""), (2, ""), (3, "")]
    sent = old("Session", id="s", checkpoint=REWARD, state=1, active_version=1).SerializeToString()
    message = pb.Session.FromString(sent)
    message.environment.varies = pb.VARIES_REWARD
    assert grpc_codec.session(message).pinned is False


def test_this_client_reads_what_it_has_no_name_for() -> None:
    """And a service of a later release: new fields are passed over, new names are said to be unrecognised."""
    versions = next(e.reply for e in releases.EXCHANGES if e.path.endswith("/versions"))["versions"]
    later = http_codec.policy_version(versions[0] | {"origin": "dreamt", "promotion": "shadowed", "mood": 1})
    assert (later.origin, later.promotion) == (VersionOrigin.UNRECOGNIZED, Promotion.UNRECOGNIZED)
    message = pb.PolicyVersion(number=1, origin=99, promotion=98)  # type: ignore[arg-type]
    read = grpc_codec.policy_version(message)
    assert (read.origin, read.promotion) == (VersionOrigin.UNRECOGNIZED, Promotion.UNRECOGNIZED)
    entry = grpc_codec.promotion_record(pb.PromotionRecord(kind=97))  # type: ignore[arg-type]
    assert entry.kind is PromotionKind.UNRECOGNIZED
