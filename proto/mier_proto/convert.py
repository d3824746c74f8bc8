"""Tensors of the contract <-> NumPy, checked.

The wire form is raw little-endian float32 in C order beside its shape. Nothing is coerced silently: a value
that float32 cannot hold as finite is refused on both sides, and a `ValueError` says what was expected and what
came. An axis named None in `shape` may have any length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mier_proto.v1 import adaptation_pb2 as pb

FloatArray = npt.NDArray[np.float32]
Shape = Sequence[int | None]

_WIRE = np.dtype("<f4")
_MAX_AXES = 8
_MAX_LENGTH = 2**31 - 1
"""More than any message holds; NumPy refuses some longer axes even of arrays without entries."""


def encode(array: npt.ArrayLike) -> pb.Tensor:
    """The tensor message that holds these values; ValueError if one is not a finite float32."""
    try:
        with np.errstate(over="ignore"):
            values = np.asarray(array).astype(_WIRE, casting="same_kind", order="C")
    except TypeError as error:
        # Integers are numbers too, though not "same kind"; objects and strings are not.
        given = np.asarray(array)
        if given.dtype.kind not in "iub":
            raise ValueError(f"expected numbers that fit float32, got dtype {given.dtype}") from error
        values = given.astype(_WIRE, order="C")
    check_finite(values, "array")
    return pb.Tensor(shape=values.shape, data=values.tobytes())


def decode(tensor: pb.Tensor, name: str, shape: Shape | None = None) -> FloatArray:
    """The values of a tensor message, writable and native; `name` is what an error calls it."""
    given, data = tuple(tensor.shape), tensor.data
    if len(given) == 1 and given[0] >= 0 and 4 * given[0] == len(data):
        # What robots send all the time; what is below does the same.
        values = np.frombuffer(data, _WIRE).astype(np.float32)
        if shape is not None:
            check_shape(values, name, shape)
        check_finite(values, name)
        return values
    if len(given) > _MAX_AXES:
        raise ValueError(f"{name}: expected at most {_MAX_AXES} axes, got {len(given)}")
    if any(not 0 <= length <= _MAX_LENGTH for length in given):
        raise ValueError(f"{name}: expected axes of length 0 to {_MAX_LENGTH}, got shape {_text(given)}")
    expected_bytes = 4 * math.prod(given)
    if len(data) != expected_bytes:
        raise ValueError(f"{name}: shape {_text(given)} needs {expected_bytes} bytes of float32, got {len(data)} bytes")
    values = np.frombuffer(data, dtype=_WIRE).reshape(given).astype(np.float32)
    if shape is not None:
        check_shape(values, name, shape)
    check_finite(values, name)
    return values


def decode_raw(data: bytes, name: str, shape: Shape) -> FloatArray:
    """The values of a binary body, whose shape is agreed beforehand; at most its first axis may be None."""
    rest = [length for length in shape[1:] if length is not None]
    if len(rest) != len(shape) - 1:
        raise ValueError(f"{name}: only the first axis of a binary body may be free, got {_text(shape)}")
    row_bytes = 4 * math.prod(rest)
    first = shape[0] if shape[0] is not None else (len(data) // row_bytes if row_bytes else 0)
    if len(data) != first * row_bytes:
        raise ValueError(
            f"{name}: expected little-endian float32 of shape {_text(shape)}, "
            f"{'a multiple of ' if shape[0] is None else ''}"
            f"{row_bytes * (1 if shape[0] is None else first)} bytes, got {len(data)} bytes"
        )
    values = np.frombuffer(data, dtype=_WIRE).reshape(first, *rest).astype(np.float32)
    check_finite(values, name)
    return values


def check_shape(values: FloatArray, name: str, shape: Shape) -> None:
    """ValueError unless `values` has this shape."""
    fits = len(shape) == values.ndim and all(
        want is None or want == have for want, have in zip(shape, values.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape {_text(shape)}, got {_text(values.shape)}")


def check_finite(values: FloatArray, name: str) -> None:
    """ValueError if an entry is NaN or infinite; names the first one."""
    if all_finite(values):
        return
    finite = np.isfinite(values)
    where = tuple(int(axis) for axis in np.argwhere(~finite)[0]) if values.ndim else ()
    raise ValueError(f"{name}: expected finite values, got {values[where]} at {_text(where)}")


def all_finite(values: FloatArray) -> bool:
    """Whether no entry is NaN or infinite."""
    # A search for a zero byte takes a third of the time of `all`.
    return 0 not in np.isfinite(values).tobytes()


def _text(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("n" if length is None else str(length) for length in shape) + "]"
