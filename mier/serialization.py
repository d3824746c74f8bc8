"""A tree of dictionaries, lists, tensors and plain values <-> bytes: safetensors for tensors, JSON for the rest.

Optimiser and training states are such trees. No pickle: reading a file can run nothing. A digest over all of it makes
any altered bit an error instead of other weights.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

_TENSOR, _ITEMS, _TREE, _DIGEST = "__tensor__", "__items__", "tree", "sha256"


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
            if odd := [key for key in node if not isinstance(key, str | int)]:
                raise TypeError(f"cannot serialise keys {odd}; expected strings or integers")
            return {_ITEMS: [[key, walk(value)] for key, value in node.items()]}
        if isinstance(node, list | tuple):
            return [walk(item) for item in node]
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(f"cannot serialise {type(node).__name__}; expected tensors, dicts, lists or plain values")

    structure = walk(tree)
    # One entry of metadata: safetensors writes several in no fixed order, and equal trees must give equal bytes.
    return save(tensors, {_TREE: json.dumps({_DIGEST: _digest(structure, tensors), _TREE: structure})})


def unpack(data: bytes) -> Any:
    """Inverse of `pack`.

    Raises:
        CorruptedData: the bytes are truncated, altered or were not written by `pack`.
    """

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return tensors[node[_TENSOR]] if _TENSOR in node else {key: walk(value) for key, value in node[_ITEMS]}
        return [walk(item) for item in node] if isinstance(node, list) else node

    try:
        tensors = load(data)
        header_bytes = int.from_bytes(data[:8], "little")
        structure = json.loads(json.loads(data[8 : 8 + header_bytes])["__metadata__"][_TREE])
        # Saves made before there was a digest hold the bare structure.
        if isinstance(structure, dict) and _TREE in structure:
            expected, structure = structure[_DIGEST], structure[_TREE]
            if (came := _digest(structure, tensors)) != expected:
                raise ValueError(f"expected sha256 {expected} of its contents, came {came}")
        return walk(structure)
    except (
        safetensors.SafetensorError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError
    ) as error:  # fmt: skip
        raise CorruptedData(f"expected a saved state, came {len(data)} bytes that are not one ({error})") from error


def _digest(structure: Any, tensors: dict[str, Tensor]) -> str:
    """sha256 (hex) over the structure and each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(structure).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(_bytes(tensor).numpy().data)
    return digest.hexdigest()


def same(a: Any, b: Any) -> bool:
    """Whether two trees are equal bit for bit; lists and tuples are alike."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    # By representation: NaN is the same as NaN, and True is not 1.
    return repr(a) == repr(b)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
