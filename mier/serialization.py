"""A tree of dictionaries, lists, tensors and plain values <-> bytes: safetensors for tensors, JSON for the rest.

Optimiser and training states are such trees. No pickle: reading a file can run nothing.
"""

from __future__ import annotations

import json
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

_TENSOR, _ITEMS, _TREE = "__tensor__", "__items__", "tree"


class CorruptedData(ValueError):
    """Bytes that are not what `pack` wrote: truncated, altered, or of another kind."""


def pack(tree: Any) -> bytes:
    """Serialise; keys may be strings or integers, leaves tensors, numbers, strings, booleans or None."""
    tensors: dict[str, Tensor] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, Tensor):
            name = str(len(tensors))
            # Clones: safetensors refuses tensors that share memory.
            tensors[name] = node.detach().cpu().contiguous().clone()
            return {_TENSOR: name}
        if isinstance(node, dict):
            return {_ITEMS: [[key, walk(value)] for key, value in node.items()]}
        if isinstance(node, list | tuple):
            return [walk(item) for item in node]
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(f"cannot serialise {type(node).__name__}; expected tensors, dicts, lists or plain values")

    return save(tensors, {_TREE: json.dumps(walk(tree))})


def unpack(data: bytes) -> Any:
    """Inverse of `pack`.

    Raises:
        CorruptedData: the bytes are truncated, altered or were not written by `pack`.
    """
    try:
        tensors = load(data)
        header_bytes = int.from_bytes(data[:8], "little")
        structure = json.loads(json.loads(data[8 : 8 + header_bytes])["__metadata__"][_TREE])
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CorruptedData(f"expected a saved state, came {len(data)} bytes that are not one ({error})") from error

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return tensors[node[_TENSOR]] if _TENSOR in node else {key: walk(value) for key, value in node[_ITEMS]}
        return [walk(item) for item in node] if isinstance(node, list) else node

    return walk(structure)


def same(a: Any, b: Any) -> bool:
    """Whether two trees are equal bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
