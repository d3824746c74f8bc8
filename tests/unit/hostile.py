"""What a decoder may be given: bytes that were damaged, values that somebody wrote with care, and little memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

_MIB = 1024 * 1024
_NUMBERS = (0, 1, -1, 2, 3, 7, 2**31 - 1, 2**63, 10**30, 0.0, -0.5, 1e308, float("nan"), float("inf"), -float("inf"))
_WORDS = ("", "policy", "policy.head.weight", "__tensor__", "__items__", "tree", "0", "reward", "\0", "\u00e9" * 50)

leaves = st.one_of(
    st.none(), st.booleans(), st.sampled_from(_NUMBERS), st.integers(), st.floats(), st.sampled_from(_WORDS),
    st.text(max_size=6),
)  # fmt: skip
json_values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4)),
    max_leaves=10,
)
dtypes = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
     torch.complex64]
)  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Small ones of any type and shape, finite or not."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    made = torch.ones(shape).to(draw(dtypes))
    if made.is_floating_point() and made.numel() and draw(st.booleans()):
        made.flatten()[0] = draw(st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e30]))
    return made


@st.composite
def altered_tensor(draw: st.DrawFn, tensor: Tensor) -> Tensor:
    """Another type, another shape, other values; or another tensor."""
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return tensor.to(draw(dtypes))
    if kind == 1:
        return tensor[None] if draw(st.booleans()) else tensor.flatten()
    if kind == 2 and tensor.numel():
        other = tensor.clone()
        bad = [torch.nan, torch.inf, -torch.inf, 3e38, 0.0] if other.is_floating_point() else [-1, 0, 1, 100]
        other.view(-1)[draw(st.integers(0, other.numel() - 1))] = draw(st.sampled_from(bad))
        return other
    if kind == 3 and tensor.ndim:
        return tensor[: draw(st.integers(0, len(tensor)))]
    return draw(tensors())


@st.composite
def altered_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Cut off, altered, longer, or something else."""
    kind = draw(st.integers(0, 4))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    some = draw(st.binary(min_size=1, max_size=9))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + some + data[at + len(some) :]
    if kind == 2:
        return data[:at] + some + data[at:]
    if kind == 3:
        return some + data[len(some) :]
    return data + some


@st.composite
def altered_tree(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with one of its nodes another, gone, or one more."""
    if isinstance(tree, Tensor):
        return draw(altered_tensor(tree)) if draw(st.integers(0, 3)) else draw(leaves)
    if isinstance(tree, dict) and tree and draw(st.integers(0, 7)):
        key = draw(st.sampled_from(sorted(tree, key=str)))
        if draw(st.integers(0, 7)) == 0:
            return {k: v for k, v in tree.items() if k != key}
        if draw(st.integers(0, 7)) == 0:
            return {**tree, draw(st.sampled_from(_WORDS)): draw(json_values)}
        return {**tree, key: draw(altered_tree(tree[key]))}
    if isinstance(tree, list | tuple) and tree and draw(st.integers(0, 7)):
        at = draw(st.integers(0, len(tree) - 1))
        if draw(st.integers(0, 7)) == 0:
            return [*tree[:at], *tree[at + 1 :]]
        return [*tree[:at], draw(altered_tree(tree[at])), *tree[at + 1 :]]
    return draw(st.one_of(json_values, tensors()))


@contextmanager
def little_memory(more_mib: int = 256) -> Iterator[None]:
    """Within it the process can take only so much more: whatever asks for gigabytes fails, and harms nobody."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more_mib * _MIB, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
