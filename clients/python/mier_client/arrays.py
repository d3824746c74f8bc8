"""Arrays of a call, checked before anything is sent: an error names the field, as the service's own would."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mier_client.errors import FieldViolation, InvalidRequest, Problem
from mier_client.values import FloatArray


def floats(name: str, values: npt.ArrayLike, axes: int) -> FloatArray:
    """The values as float32 with so many axes; InvalidRequest if they are not that, or not finite."""
    given = np.asarray(values)
    if given.dtype.kind not in "fiub":
        raise _invalid(name, f"expected numbers, got dtype {given.dtype}")
    if given.ndim != axes:
        raise _invalid(name, f"expected {axes} axes, got shape {list(given.shape)}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(given, dtype=np.float32)
    if not np.isfinite(array).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise _invalid(name, f"expected finite float32 values, got {given[where]} at {list(where)}")
    return array


def flags(name: str, values: npt.ArrayLike | None, count: int) -> npt.NDArray[np.bool_]:
    """[count] booleans, all False if None; InvalidRequest if they are not that."""
    if values is None:
        return np.zeros(count, dtype=np.bool_)
    given = np.asarray(values)
    if given.shape != (count,) or not (given.dtype == np.bool_ or np.isin(given, (0, 1)).all()):
        raise _invalid(name, f"expected {count} booleans, got shape {list(given.shape)}, dtype {given.dtype}")
    return given.astype(np.bool_)


def _invalid(name: str, detail: str) -> InvalidRequest:
    return InvalidRequest(Problem("INVALID_ARGUMENT", f"{name}: {detail}", violations=(FieldViolation(name, detail),)))
