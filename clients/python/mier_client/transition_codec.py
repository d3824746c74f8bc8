"""Transitions that are read back, of either transport -> the client's values. A run that is not one is the server's
fault, and none of it gets out: what is read can be submitted again as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mier_client.calls import TransitionBatch
from mier_client.replies import reply
from mier_client.values import FloatArray
from mier_proto.convert import check_finite, check_shape, decode
from mier_proto.v1 import adaptation_pb2 as pb

_ROWS, _FLAGS = ("observation", "action", "reward", "next_observation"), ("terminated", "truncated")


@reply("a page of transitions")
def http_page(body: Mapping[str, Any]) -> tuple[list[TransitionBatch], str]:
    runs = [_run(run, {name: _floats(run[name]) for name in _ROWS}) for run in body["runs"]]
    return runs, str(body["next_page_token"])


@reply("a page of transitions")
def grpc_page(message: pb.ListTransitionsResponse) -> tuple[list[TransitionBatch], str]:
    fields = ("episode", "first_step", "policy_version", *_FLAGS)
    runs = [
        _run({name: getattr(run, name) for name in fields}, {name: decode(getattr(run, name), name) for name in _ROWS})
        for run in message.runs
    ]
    return runs, message.next_page_token


def _run(rest: Mapping[str, Any], arrays: dict[str, FloatArray]) -> TransitionBatch:
    count, observation_dim = len(arrays["reward"]), arrays["observation"].shape[-1]
    shapes = {
        "observation": (count, None),
        "action": (count, None),
        "reward": (count,),
        "next_observation": (count, observation_dim),
    }
    for name, shape in shapes.items():
        check_shape(arrays[name], name, shape)
        check_finite(arrays[name], name)
    versions = _checked(rest["policy_version"], "iu", count)
    numbers = _checked([rest["episode"], rest["first_step"]], "iu", 2).tolist()
    terminated, truncated = (_checked(rest[name], "b", count) for name in _FLAGS)
    episode, first_step = numbers
    given: dict[str, Any] = {**arrays, "terminated": terminated, "truncated": truncated}
    return TransitionBatch(episode, first_step, **given, policy_version=tuple(versions.tolist()))


def _floats(given: Any) -> FloatArray:
    return _numbers(given, "fi").astype(np.float32)


def _checked(given: Any, kinds: str, count: int) -> npt.NDArray[Any]:
    found = _numbers(given, kinds)
    if found.shape != (count,) or (found < 0).any():
        raise ValueError(f"expected {count} values that are not negative, got {given!r}")
    return found


def _numbers(given: Any, kinds: str) -> npt.NDArray[Any]:
    found = np.array(given)
    if found.dtype.kind not in kinds and found.size:
        raise ValueError(f"expected numbers, got {given!r}")
    return found
