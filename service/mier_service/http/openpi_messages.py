"""What openpi's clients say and are told: msgpack maps, arrays being maps themselves, as `openpi_client.msgpack_numpy`
packs them. Bytes in, values out; no pickle, no dtype but numbers.

An array is {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [3]}, a NumPy number
{b"__npgeneric__": True, b"data": number, b"dtype": "<f4"}. Only the entries that are asked for are turned into values:
pictures and prompts in an observation cost nothing but their bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from mier_service.acting.acting import ActCall, Action
from mier_service.errors import Reason, ServiceError, invalid
from mier_service.values import SessionValue

FloatArray = npt.NDArray[np.float32]

OBSERVATION_KEYS = ("observation", "observation/state", "state")
"""Where an observation may lie: our own word, and those of openpi's robots."""
_NUMBERS = re.compile(r"[<>|=]?[biuf][1248]")
_MAX_AXES = 8


def metadata(session: SessionValue) -> bytes:
    """The first frame: what the client's `get_server_metadata` returns."""
    environment = session.environment
    return _pack(
        {
            "service": "mier",
            "session_id": session.id,
            "checkpoint": session.checkpoint,
            "checkpoint_hash": session.checkpoint_hash,
            "environment": {
                "id": environment.id,
                "observation_names": list(environment.observation_names),
                "action_names": list(environment.action_names),
                "action_low": np.asarray(environment.action_low, np.float32),
                "action_high": np.asarray(environment.action_high, np.float32),
                "dt_s": environment.dt_s,
                "horizon_steps": environment.horizon_steps,
            },
            "observation_keys": list(OBSERVATION_KEYS),
            "action_horizon": 1,
        }
    )


def act_call(data: bytes, session_id: str) -> ActCall:
    """The question in one frame. Deterministic unless it says otherwise: openpi's robots know of no exploring."""
    found = _unpack(data)
    named = [key for key in OBSERVATION_KEYS if key in found]
    if len(named) != 1:
        expected = ", ".join(OBSERVATION_KEYS)
        raise invalid("observation", f"observation: expected one of the entries {expected}, got {named or 'none'}")
    deterministic = _plain(found.get("deterministic", True))
    if not isinstance(deterministic, (bool, np.bool_)):
        raise invalid("deterministic", f"deterministic: expected true or false, got {str(deterministic)[:80]!r}")
    return ActCall(
        session_id,
        _observation(found[named[0]]),
        bool(deterministic),
        _index("episode", found.get("episode")),
        _index("step", found.get("step")),
    )


def answer(action: Action, infer_ms: float) -> bytes:
    """The reply: a chunk of one action, [1, action_dim], as openpi's policies reply with chunks."""
    return _pack(
        {
            "actions": action.action[None],
            "policy_version": action.policy_version,
            "weights_hash": action.weights_hash,
            "ood_percentile": action.ood_percentile,
            "limited": action.limited,
            "server_timing": {"infer_ms": infer_ms},
        }
    )


def _pack(value: Mapping[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(value, default=_pack_array)
    return packed


def _pack_array(value: object) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"a reply holds arrays and plain values, not {type(value).__name__}")


def _unpack(data: bytes) -> Mapping[Any, Any]:
    try:
        found = msgpack.unpackb(data)
    except (msgpack.UnpackException, ValueError, RecursionError, TypeError) as error:
        raise ServiceError(
            Reason.MALFORMED_REQUEST, f"expected a msgpack map, got bytes that are none ({type(error).__name__})"
        ) from None
    if not isinstance(found, dict):
        raise ServiceError(Reason.MALFORMED_REQUEST, f"expected a msgpack map, got a {type(found).__name__}")
    return found


def _observation(value: object) -> FloatArray:
    """[observation_dim] or [1, observation_dim]; whether it fits, acting tells."""
    plain = _plain(value)
    try:
        array = np.asarray(plain)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise invalid("observation", f"observation: expected an array of numbers, got {str(plain)[:80]!r}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _index(name: str, value: object) -> int | None:
    plain = _plain(value)
    if plain is None:
        return None
    if isinstance(plain, bool) or not isinstance(plain, (int, np.integer)):
        raise invalid(name, f"{name}: expected an integer, got {str(plain)[:80]!r}")
    return int(plain)


def _plain(value: object) -> object:
    """An array or a NumPy number that is packed in a map, else the value itself."""
    if not isinstance(value, dict):
        return value
    entries = {key.decode(errors="replace") if isinstance(key, bytes) else key: item for key, item in value.items()}
    dtype = entries.get("dtype")
    if isinstance(dtype, bytes):
        dtype = dtype.decode(errors="replace")
    if not isinstance(dtype, str) or not _NUMBERS.fullmatch(dtype):
        raise _no_array(f"expected a dtype of numbers, such as <f4, got {str(dtype)[:80]!r}")
    try:
        kind = np.dtype(dtype)
        if "__npgeneric__" in entries:
            return kind.type(entries["data"])
        return _array(kind, entries.get("data"), entries.get("shape"))
    except (OverflowError, TypeError, ValueError, KeyError) as error:
        raise _no_array(str(error)[:200]) from None


def _array(kind: np.dtype[Any], data: object, shape: object) -> object:
    if not isinstance(data, bytes) or not isinstance(shape, (list, tuple)) or len(shape) > _MAX_AXES:
        raise _no_array(f"expected bytes and a shape of at most {_MAX_AXES} axes")
    if not all(type(length) is int and 0 <= length < 2**31 for length in shape):
        raise _no_array(f"expected a shape of lengths, got {str(shape)[:80]}")
    if math.prod(shape) * kind.itemsize != len(data):
        raise _no_array(
            f"shape {list(shape)} of {kind} needs {math.prod(shape) * kind.itemsize} bytes, got {len(data)}"
        )
    return np.frombuffer(data, kind).reshape(shape)


def _no_array(detail: str) -> ServiceError:
    return invalid("observation", f"expected values as openpi_client packs them: {detail}")
