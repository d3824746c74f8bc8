"""Messages for a method of the contract, generated from its descriptor: nearly right ones, and hostile ones.

A method that is new is served at once: what it takes is read from the descriptor. Nearly right messages come from the
one that succeeds (`every_call`), with a few of its fields changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from mier_proto.v1 import adaptation_pb2 as pb
from tests.contract import tiny
from tests.contract.every_call import GRPC, SERVICE, Ids
from tests.contract.fuzzed import CHECKPOINT, MAX_BODY_BYTES, MAX_UPDATES, OPERATION, SESSION

_TENSOR = pb.Tensor.DESCRIPTOR
_F = FieldDescriptor
_RANGES = {
    _F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    _F.CPPTYPE_UINT32: (0, 2**32 - 1),
    _F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    _F.CPPTYPE_UINT64: (0, 2**64 - 1),
    _F.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_INTEGERS = (0, 1, 2, 4, 7, 40, 100, 1000, 1001, -1, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, 0.05, 1e-45, 1e300, -1e300, float("nan"), float("inf"), -float("inf"))
_WORDS = (
    *[SESSION] * 8, *[OPERATION] * 6, CHECKPOINT, "", "nobody", "MQ==", "LTE=", "\0", "..", "../../etc/passwd",
    "\u00e9" * 200, "\U0001f916" * 120, "x" * 101, "x" * 256, "key", "key 2", "%s%n", "'; DROP TABLE sessions; --",
)  # fmt: skip

_SHOWN = 2000

texts = st.one_of(st.sampled_from(_WORDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
floats = st.one_of(st.sampled_from(_FLOATS), st.floats(allow_nan=True))


def integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([n for n in _INTEGERS if low <= n <= high]), st.integers(low, high))


@st.composite
def tensors(draw: st.DrawFn) -> pb.Tensor:
    """Arrays that fit or nearly do, of any values; and tensors whose shape and bytes have nothing to do with each
    other."""
    if draw(st.integers(0, 3)):
        axes = [draw(st.sampled_from((1, 2, 3, 4, tiny.HORIZON_STEPS, 40)))]
        if draw(st.booleans()):
            axes.append(draw(st.sampled_from((tiny.OBSERVATION_DIM, tiny.ACTION_DIM, 0, 1, 3, 5))))
        value = draw(st.sampled_from((0.0, 1.0, -0.7, 1e-40, 1e20, 3e38, -3e38, *_FLOATS)))
        with np.errstate(over="ignore"):
            values = np.full(axes, value, np.float32)
        if values.size and draw(st.booleans()):
            values.flat[draw(st.integers(0, values.size - 1))] = draw(st.sampled_from((0.5, 3e38, float("nan"))))
        return pb.Tensor(shape=axes, data=values.astype("<f4").tobytes())
    shape = draw(
        st.one_of(
            st.lists(integers(-(2**63), 2**63 - 1), max_size=4),
            st.sampled_from(([1] * 9, [1] * 3000, [0, 2**62, 2**62], [2**40, 2**40], [2**62] * 8)),
        )
    )
    return pb.Tensor(shape=shape, data=draw(st.binary(max_size=40)))


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Any value that one entry of the field can hold."""
    kind = field.cpp_type
    if kind in (_F.CPPTYPE_DOUBLE, _F.CPPTYPE_FLOAT):
        return floats
    if kind == _F.CPPTYPE_BOOL:
        return st.booleans()
    if kind == _F.CPPTYPE_STRING:
        return texts if field.type == _F.TYPE_STRING else st.binary(max_size=64)
    if kind == _F.CPPTYPE_MESSAGE:
        inner = field.message_type
        assert inner is not None, "a field of messages has their type"
        return tensors() if inner is _TENSOR else generated(inner)
    return integers(*_RANGES[kind])


@st.composite
def generated(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    """A message with any of its fields set to anything."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if draw(st.integers(0, 3)):
            _put(draw, message, field)
    return message


@st.composite
def nearly_right(draw: st.DrawFn, method: str) -> Message:
    """The message that succeeds, with up to three of its fields changed."""
    message = _right(method)
    for _ in range(draw(st.integers(0, 3))):
        _change(draw, message)
    return message


@dataclass(frozen=True)
class Request:
    """A generated message; in a report only its beginning is shown."""

    message: Message

    def __repr__(self) -> str:
        text = str(self.message)
        return f"<{self.message.DESCRIPTOR.name} {text[:_SHOWN]}{'...' if len(text) > _SHOWN else ''}>"

    def encoded(self, named: Callable[[str], str]) -> bytes:
        """On the wire, with the ids that its words stand for."""
        with_ids(self.message, named)
        return self.message.SerializeToString()


@st.composite
def requests(draw: st.DrawFn, method: str) -> Request:
    """Messages for a method, known or new."""
    hostile = generated(SERVICE.methods_by_name[method].input_type)
    return Request(draw(st.one_of(nearly_right(method), hostile) if method in GRPC else hostile))


@st.composite
def wrapped(draw: st.DrawFn, descriptor: Descriptor) -> Request:
    """Messages of any type, whose report is short."""
    return Request(draw(generated(descriptor)))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes as they might come of a message: cut off, altered, repeated, or something else altogether."""
    kind = draw(st.integers(0, 6))
    at = draw(st.integers(0, len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at + 1 :]
    if kind == 2:
        return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
    if kind == 3:
        return data * draw(st.integers(2, 4))
    if kind == 4:
        # Groups within groups, a varint without an end, a field number that cannot be.
        return data + draw(st.sampled_from((b"\x0b" * 200, b"\xff" * 11, b"\x00\x00", b"\x0a\xff\xff\xff\xff\x0f")))
    if kind == 5:
        # A field that nobody knows, as long as it may be, or longer.
        count = draw(st.sampled_from((100, MAX_BODY_BYTES - 2000, MAX_BODY_BYTES + 1)))
        return data + b"\xfa\x7f" + _varint(count) + b"\0" * count
    return draw(st.binary(max_size=60))


def with_ids(message: Message, named: Callable[[str], str]) -> None:
    """Puts in what names stand for, and shortens fine-tunes; in place."""
    for field, value in message.ListFields():
        if field.cpp_type == _F.CPPTYPE_STRING and field.type == _F.TYPE_STRING:
            if field.is_repeated:
                value[:] = [named(text) for text in value]
            else:
                setattr(message, field.name, named(value))
        elif holds_messages(field):
            for inner in value if field.is_repeated else [value]:
                with_ids(inner, named)
        elif field.name == "updates" and value > MAX_UPDATES and value <= 1_000_000:
            message.updates = value % MAX_UPDATES + 1  # type: ignore[attr-defined]


def holds_messages(field: FieldDescriptor) -> bool:
    """Whether its entries are messages; those of a map are not."""
    return field.message_type is not None and not field.message_type.GetOptions().map_entry


def require_finite(tensor: pb.Tensor) -> None:
    """Its bytes are as many finite float32 as its shape says."""
    found = np.frombuffer(tensor.data, "<f4")
    assert found.size == np.prod(list(tensor.shape)), tensor
    assert np.isfinite(found).all(), found


def _right(method: str) -> Message:
    """The message that succeeds, on the checkpoint that there is."""
    message = GRPC[method].request(Ids(SESSION, OPERATION))
    if "checkpoint" in message.DESCRIPTOR.fields_by_name:
        message.checkpoint = CHECKPOINT  # type: ignore[attr-defined]
    return message


def _put(draw: st.DrawFn, message: Message, field: FieldDescriptor) -> None:
    if not field.is_repeated:
        _set(message, field, draw(values(field)))
        return
    message.ClearField(field.name)
    if field.cpp_type == _F.CPPTYPE_MESSAGE and not holds_messages(field):
        return  # replies have maps, requests have none
    entries = draw(st.lists(values(field), max_size=3)) * draw(st.sampled_from((1, 1, 1, 14, 350)))
    getattr(message, field.name).extend(entries)


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    if isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _change(draw: st.DrawFn, message: Message) -> None:
    """Changes one field, at any depth."""
    if not message.DESCRIPTOR.fields:
        return
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    field: FieldDescriptor = draw(st.sampled_from(fields))
    inner = list(_messages(message, field))
    if inner and field.message_type is not _TENSOR and draw(st.integers(0, 3)):
        _change(draw, draw(st.sampled_from(inner)))
    elif draw(st.integers(0, 3)):
        _put(draw, message, field)
    else:
        message.ClearField(field.name)


def _messages(message: Message, field: FieldDescriptor) -> Iterable[Message]:
    if field.cpp_type == _F.CPPTYPE_MESSAGE:
        if field.is_repeated:
            yield from getattr(message, field.name)
        elif message.HasField(field.name):
            yield getattr(message, field.name)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
