"""A policy to act with away from the service, as one signed file: the same code writes it there and reads it here.

    8 bytes    MIERBDL1
    64 bytes   Ed25519 signature of the magic, the manifest's length and the manifest
    4 bytes    length of the manifest, little endian
    ...        manifest: a JSON object, UTF-8
    4 bytes    length of a graph, little endian; 0: left out, whoever asked has it         } one for each of the
    ...        the graph: ONNX, normaliser and action bounds inside                        } manifest's graphs, in order

Invariants
- Nothing is parsed before the signature holds; until then it is bytes of known lengths.
- The manifest names each graph by its SHA-256, so the signature covers every byte of a whole file. Nothing may follow.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

MAGIC = b"MIERBDL1"
SIGNATURE_BYTES = 64
FORMAT = 1
MAX_MANIFEST_BYTES = 1024 * 1024
_LENGTH = struct.Struct("<I")
_SIGNED_FROM = len(MAGIC) + SIGNATURE_BYTES
_HEAD_BYTES = _SIGNED_FROM + _LENGTH.size


class BundleFault(StrEnum):
    """What is wrong with a bundle; stable names."""

    DAMAGED = "BUNDLE_DAMAGED"
    """No bundle, or not all of one, or more than one."""
    NOT_SIGNED = "BUNDLE_NOT_SIGNED"
    """By none of the keys that are trusted."""
    TOO_LARGE = "BUNDLE_TOO_LARGE"
    OTHER_SESSION = "BUNDLE_OTHER_SESSION"
    OLDER = "BUNDLE_OLDER"
    """Something else was made to act after it."""
    UNUSABLE = "BUNDLE_UNUSABLE"
    """Signed, and yet nothing to act with here."""


class BundleError(ValueError):
    """A bundle cannot be taken."""

    def __init__(self, fault: BundleFault, detail: str) -> None:
        super().__init__(detail)
        self.fault, self.detail = fault, detail


@dataclass(frozen=True)
class ActsWith:
    """A graph under a context."""

    version: int
    """Policy version of the session."""
    weights_hash: str
    graph: str
    """SHA-256 of the ONNX file, 64 lower-case hex digits."""
    context: tuple[float, ...]
    """[context_dim], float32"""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself; the signature is over its bytes."""

    session_id: str
    serial: int
    """Grows with each change of what acts in the session, a rollback included: the number of the newest entry in the
    record of promotions."""
    acts: ActsWith
    base: ActsWith | None
    """Version 1, where the session's fallback is the base policy."""
    checkpoint_hash: str
    seed: int
    """Of the exploration noise."""
    environment: str
    """Its id."""
    observation_names: tuple[str, ...]
    """Order of an observation."""
    action_names: tuple[str, ...]
    """Order of an action."""
    dt_s: float
    action_low: tuple[float, ...]
    """[action_dim], environment units: the session's limits, and the environment's where it declared none."""
    action_high: tuple[float, ...]
    action_max_change: tuple[float, ...]
    """Per step; empty: not limited."""
    limited: bool
    """Whether the limits are tighter than the bounds that the graph itself keeps."""
    fallback: str
    """What acts once it is too old: incumbent, base_policy, hold_last, hold_zero; empty: nothing, it refuses."""
    create_time_unix_us: int
    max_age_s: float | None
    """After so long it is too old; None: never."""

    @property
    def graphs(self) -> tuple[str, ...]:
        """Of the file, in order: each once."""
        named = [self.acts.graph] if self.base is None else [self.acts.graph, self.base.graph]
        return tuple(dict.fromkeys(named))

    @property
    def tag(self) -> str:
        """Tells it apart from every other one of its session: what a robot says that it has."""
        return f"{self.serial}-{self.create_time_unix_us}"

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()

    @staticmethod
    def of_bytes(data: bytes) -> Manifest:
        """BundleError (UNUSABLE) for a format of another release."""
        try:
            found = json.loads(data)
            if found["format"] != FORMAT:
                raise ValueError(f"expected format {FORMAT}, got {found['format']!r}: it is of another release")
            return _manifest(found)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise BundleError(
                BundleFault.UNUSABLE, f"expected a bundle's manifest: {type(error).__name__}: {error}"
            ) from None


def pack(manifest: bytes, sign: Callable[[bytes], bytes], graphs: Sequence[bytes]) -> bytes:
    """The file. `graphs` are those of the manifest in order, empty where one is left out; `sign` is Ed25519's."""
    signed = _signed(manifest)
    return b"".join((MAGIC, sign(MAGIC + signed), signed, *(_LENGTH.pack(len(graph)) + graph for graph in graphs)))


@dataclass(frozen=True, eq=False)
class Unpacked:
    """A bundle whose signature holds."""

    manifest: Manifest
    head: bytes
    """All that comes before the graphs."""
    graphs: Mapping[str, bytes]
    """By SHA-256."""

    def without_graphs(self) -> bytes:
        """The file for whoever has the graphs."""
        return self.head + _LENGTH.pack(0) * len(self.manifest.graphs)


def unpack(
    data: bytes, verified: Callable[[bytes, bytes], bool], held: Callable[[str], bytes | None] = lambda _: None
) -> Unpacked:
    """The bundle in a file.

    Args:
        data: the file.
        verified: whether the signature (the first argument) is one of the message (the second) by a trusted key.
        held: gives a graph that the file leaves out, by its SHA-256; None: it is not here.

    Raises:
        BundleError: DAMAGED, NOT_SIGNED or UNUSABLE.
    """
    if len(data) < _HEAD_BYTES or data[: len(MAGIC)] != MAGIC:
        raise BundleError(BundleFault.DAMAGED, f"expected a bundle, which begins with {MAGIC!r}, got {data[:8]!r}")
    (length,) = _LENGTH.unpack_from(data, _SIGNED_FROM)
    end = _HEAD_BYTES + length
    if length > MAX_MANIFEST_BYTES or end > len(data):
        raise BundleError(BundleFault.DAMAGED, f"expected a manifest of {length} bytes, got {len(data)} bytes in all")
    if not verified(data[len(MAGIC) : _SIGNED_FROM], MAGIC + data[_SIGNED_FROM:end]):
        raise BundleError(
            BundleFault.NOT_SIGNED,
            "expected a bundle signed by a key that is trusted here: it was changed on the way, or the service has "
            "another key (`mierctl bundles key` prints it)",
        )
    manifest = Manifest.of_bytes(data[_HEAD_BYTES:end])
    graphs = {}
    for name in manifest.graphs:
        graph, end = _graph(data, end)
        graphs[name] = _whole(name, graph or held(name))
    if end != len(data):
        raise BundleError(BundleFault.DAMAGED, f"expected a bundle of {end} bytes, got {len(data)}")
    return Unpacked(manifest, data[: _HEAD_BYTES + length], graphs)


def _signed(manifest: bytes) -> bytes:
    return _LENGTH.pack(len(manifest)) + manifest


def _graph(data: bytes, start: int) -> tuple[bytes, int]:
    """A graph, and where the next one begins."""
    begin = start + _LENGTH.size
    end = begin + _LENGTH.unpack_from(data, start)[0] if begin <= len(data) else begin
    if end > len(data):
        raise BundleError(BundleFault.DAMAGED, f"expected {end} bytes or more, got {len(data)}: its end is missing")
    return data[begin:end], end


def _whole(name: str, graph: bytes | None) -> bytes:
    if graph is None:
        raise BundleError(BundleFault.DAMAGED, f"expected the graph {name[:12]}..., which is neither in it nor here")
    if hashlib.sha256(graph).hexdigest() != name:
        raise BundleError(BundleFault.DAMAGED, f"the graph {name[:12]}... does not have the content that its name says")
    return graph


def _manifest(found: Mapping[str, Any]) -> Manifest:
    return Manifest(
        session_id=str(found["session_id"]),
        serial=int(found["serial"]),
        acts=_acts_with(found["acts"]),
        base=None if found["base"] is None else _acts_with(found["base"]),
        checkpoint_hash=str(found["checkpoint_hash"]),
        seed=int(found["seed"]),
        environment=str(found["environment"]),
        observation_names=tuple(map(str, found["observation_names"])),
        action_names=tuple(map(str, found["action_names"])),
        dt_s=float(found["dt_s"]),
        action_low=_floats(found["action_low"]),
        action_high=_floats(found["action_high"]),
        action_max_change=_floats(found["action_max_change"]),
        limited=bool(found["limited"]),
        fallback=str(found["fallback"]),
        create_time_unix_us=int(found["create_time_unix_us"]),
        max_age_s=None if found["max_age_s"] is None else float(found["max_age_s"]),
    )


def _acts_with(found: Mapping[str, Any]) -> ActsWith:
    return ActsWith(int(found["version"]), str(found["weights_hash"]), str(found["graph"]), _floats(found["context"]))


def _floats(found: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, found))
