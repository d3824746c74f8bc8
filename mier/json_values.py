"""Frozen dataclasses from JSON, checked: a file that somebody wrote is no reason to believe its types."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")


def from_json(cls: type[T], value: Any) -> T:
    """The dataclass that `dataclasses.asdict` and JSON made `value` of; what was left out has its default.

    Raises:
        ValueError: a key is unknown or missing, or a value is of another type than its field; named by both.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{cls.__name__}: expected an object, came {_short(value)}")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(value) - set(known), key=str):
        raise ValueError(f"{cls.__name__}: unknown keys {_short(unknown)}; known are {sorted(known)}")
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - set(value)):
        raise ValueError(f"{cls.__name__}: missing keys {missing}")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _read(hints[name], item, f"{cls.__name__}.{name}") for name, item in value.items()})


def _read(hint: Any, item: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(item, list | tuple):
            raise ValueError(f"{where}: expected a list, came {_short(item)}")
        return tuple(_read(typing.get_args(hint)[0], entry, where) for entry in item)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (h for h in typing.get_args(hint) if h is not type(None))
        return None if item is None else _read(inner, item, where)
    if is_dataclass(hint):
        return from_json(typing.cast(type[Any], hint), item)
    if issubclass(hint, StrEnum):
        return hint(_read(str, item, where))
    if not _is_a(hint, item):
        raise ValueError(f"{where}: expected {_NAMES[hint]}, came {_short(item)}")
    return item


_NAMES = {bool: "true or false", int: "an integer", float: "a finite number", str: "a text"}


def _is_a(hint: type, item: Any) -> bool:
    if hint is float:
        # An integer will do, if a float can hold it.
        return isinstance(item, int | float) and not isinstance(item, bool) and _holds(item)
    return isinstance(item, str) if hint is str else type(item) is hint


def _holds(item: int | float) -> bool:
    try:
        return math.isfinite(float(item))
    except OverflowError:
        return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
