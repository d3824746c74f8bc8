"""Every gRPC method under generated messages and bytes: typed refusals, sound replies, and nothing from inside.

The methods come from the service's descriptor, their messages from its types (`fuzz_messages`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from mier_client.errors import InvalidRequest
from mier_client.grpc_codec import error_from_rpc
from mier_proto.v1 import adaptation_pb2 as pb
from mier_service.errors import Reason
from tests.contract import fuzz_messages, refusals
from tests.contract.every_call import SERVICE, grpc_methods
from tests.contract.fuzzed import MAX_BODY_BYTES, Fuzzed
from tests.contract.helpers import CALL_S
from tests.fuzzing import Tried, fuzz

GRPC_OWN_LIMIT = 2 * MAX_BODY_BYTES
"""The service reads messages up to there, and says what is wrong with those above its limit; gRPC refuses the rest."""
_REPLIES = 3
"""Of a stream of replies so many are read: an operation that waits for a worker may be watched for long."""
_KEYS = st.sampled_from(["admin"] * 12 + ["adapt", "act", "elsewhere", "unknown", "odd", ""])


@pytest.fixture(scope="module")
def channel(fuzzed: Fuzzed) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(fuzzed.server.grpc) as channel:
        yield channel


@pytest.mark.parametrize("method", grpc_methods())
def test_any_message_is_answered_or_refused(method: str, fuzzed: Fuzzed, channel: grpc.Channel, tried: Tried) -> None:
    """Failed on what was so once: a batch that one act spoilt, details longer than trailers, replies held to the limit
    of requests."""
    streams = SERVICE.methods_by_name[method].client_streaming

    @fuzz(30)
    @given(st.lists(fuzz_messages.requests(method), min_size=not streams, max_size=4 if streams else 1), _KEYS)
    def run(requests: list[fuzz_messages.Request], key: str) -> None:
        tried()
        answered = _call(channel, method, [request.encoded(fuzzed.named) for request in requests], fuzzed, key)
        if method == "DeleteSession" and isinstance(answered, list):
            fuzzed.forget()

    run()


@pytest.mark.parametrize("method", grpc_methods())
def test_any_bytes_are_answered_or_refused(method: str, fuzzed: Fuzzed, channel: grpc.Channel, tried: Tried) -> None:
    """Also several where one belongs. Failed on what was so once, for every method: no word about bytes that cannot be
    parsed."""

    @fuzz(15)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        tried()
        requests = data.draw(st.lists(fuzz_messages.requests(method), max_size=2))
        payloads = [data.draw(fuzz_messages.damaged(request.encoded(fuzzed.named))) for request in requests]
        answered = _call(channel, method, payloads, fuzzed, "admin")
        if method == "DeleteSession" and isinstance(answered, list):
            fuzzed.forget()

    run()


@pytest.mark.parametrize("method", [m for m in grpc_methods() if not SERVICE.methods_by_name[m].client_streaming])
def test_no_message_where_one_belongs_is_refused(method: str, fuzzed: Fuzzed, channel: grpc.Channel) -> None:
    answered = _call(channel, method, [], fuzzed, "admin")
    assert isinstance(answered, refusals.Refusal)
    assert answered.reason is Reason.MALFORMED_REQUEST


def _call(
    channel: grpc.Channel, method: str, payloads: Sequence[bytes], fuzzed: Fuzzed, key: str
) -> list[Message] | refusals.Refusal | None:
    """The checked replies, or the checked refusal; None where gRPC refused by itself, before the service saw it."""
    described = SERVICE.methods_by_name[method]
    reply_type = getattr(pb, described.output_type.name)
    # Streams on this side of any call, so that it can send none, or several, where one belongs.
    make = channel.stream_stream if described.server_streaming else channel.stream_unary
    call: Any = make(f"/{SERVICE.full_name}/{method}", None, reply_type.FromString)
    metadata = [(name.lower(), value) for name, value in fuzzed.authorization(key).items()]
    try:
        reply = call(iter(payloads), metadata=metadata, timeout=CALL_S)
        replies = [reply] if not described.server_streaming else []
        if described.server_streaming:
            for one in reply:
                replies.append(one)
                if len(replies) == max(_REPLIES, len(payloads)):
                    reply.cancel()
                    break
    except grpc.RpcError as error:
        if max(map(len, payloads), default=0) > GRPC_OWN_LIMIT and error_from_rpc(error).reason == "BODY_TOO_LARGE":
            return None  # in gRPC's own words, which the client takes for the service's
        return refusals.of_rpc(error)
    for one in replies:
        _sound(one)
    return replies


def _sound(message: Message) -> None:
    """A reply keeps the contract: finite numbers, no value left unsaid, refusals inside it typed."""
    if isinstance(message, status_pb2.Status):
        refusals.of_status(message)
        return
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            if fuzz_messages.holds_messages(field):
                if not isinstance(message, pb.Operation) or field.name != "error":
                    _sound(one)
            elif isinstance(one, float):
                assert math.isfinite(one), message
            elif isinstance(one, str):
                refusals.nothing_from_inside(one)
    enums = [f.name for f in message.DESCRIPTOR.fields if f.cpp_type == FieldDescriptor.CPPTYPE_ENUM]
    assert all(getattr(message, name) != 0 for name in enums), message
    if isinstance(message, pb.ActResponse):
        fuzz_messages.require_finite(message.action)


def test_what_is_not_offered_is_refused(fuzzed: Fuzzed, channel: grpc.Channel, tried: Tried) -> None:
    """Failed on what was so once: gRPC's own `Method not found!`, without a status."""
    paths = [
        "/mier_proto.v1.AdaptationService/Promise",
        "/mier_proto.v2.AdaptationService/Act",
        "/a/b",
        "/",
        "//",
        "/a",
    ]

    @fuzz(20)
    @given(st.sampled_from(paths), st.binary(max_size=20), st.sampled_from(["admin", "act"]))
    def run(path: str, payload: bytes, key: str) -> None:
        tried()
        call: Any = channel.unary_unary(path, None, None)
        metadata = [("authorization", fuzzed.authorization(key)["Authorization"])]
        with pytest.raises(grpc.RpcError) as told:
            call(payload, metadata=metadata, timeout=CALL_S)
        assert refusals.of_rpc(told.value).reason is Reason.ROUTE_NOT_FOUND

    run()


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize(
    "unpacked_bytes", [MAX_BODY_BYTES + 1, GRPC_OWN_LIMIT, GRPC_OWN_LIMIT + 1, 64 * MAX_BODY_BYTES]
)
def test_a_message_that_is_large_once_unpacked_is_refused(
    fuzzed: Fuzzed, channel: grpc.Channel, compression: grpc.Compression, unpacked_bytes: int
) -> None:
    """Little that unpacks to much is held to the same limit, and is told the same type and the limit. Beyond twice the
    limit it is gRPC itself that refuses, in its own words, which the client takes for what they mean.

    Broken on purpose: without the length in the parser of messages; seen: INVALID_ARGUMENT, for bytes that are none."""
    call: Any = channel.unary_unary(f"/{SERVICE.full_name}/Act", None, None)
    metadata = [(name.lower(), value) for name, value in fuzzed.authorization("act").items()]
    with pytest.raises(grpc.RpcError) as told:
        call(b"\0" * unpacked_bytes, timeout=CALL_S, metadata=metadata, compression=compression)
    refused: Any = told.value
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    if unpacked_bytes > GRPC_OWN_LIMIT:
        error = error_from_rpc(refused)
        assert isinstance(error, InvalidRequest), "another try would not change it"
        assert error.reason == "BODY_TOO_LARGE"
        return
    refusal = refusals.of_rpc(refused)
    assert refusal.reason is Reason.BODY_TOO_LARGE
    assert refusal.type == "urn:problem-type:mier:body-too-large"
    assert str(MAX_BODY_BYTES) in refusal.detail
