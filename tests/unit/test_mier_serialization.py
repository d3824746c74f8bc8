"""Trees of tensors and values through bytes; whatever is cut off or altered is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from mier.serialization import CorruptedData, pack, same, unpack

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    made = (torch.arange(int(np.prod(shape))) * draw(st.integers(-3, 3))).reshape(shape).to(dtype)
    if made.is_floating_point() and made.numel() and draw(st.booleans()):
        made.flatten()[0] = draw(st.sampled_from([torch.nan, torch.inf, -torch.inf, -0.0]))
    return made


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), tensors(),
    st.sampled_from(["__tensor__", "__items__", "tree", "sha256"]),
)  # fmt: skip
keys = st.one_of(st.integers(-3, 3), st.text(max_size=4), st.sampled_from(["__tensor__", "__items__", "tree"]))
trees = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)), max_leaves=8
)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_round_trip(tree: Any) -> None:
    data = pack(tree)
    assert same(unpack(data), tree)
    assert pack(unpack(data)) == data  # deterministic, and nothing drifts


def test_tuples_come_back_as_lists_and_keys_keep_their_type() -> None:
    assert unpack(pack({0: (1, 2), "0": "x"})) == {0: [1, 2], "0": "x"}


def test_shared_and_strided_memory_is_written_by_value() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tree = {"a": whole, "b": whole, "row": whole[1], "transposed": whole.T}
    again = unpack(pack(tree))
    assert same(again, tree)
    again["a"].zero_()
    assert same(again["b"], whole)


def test_the_state_of_an_optimiser_survives() -> None:
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(layer.parameters(), lr=3e-4, fused=True)
    layer(torch.randn(4, 3)).sum().backward()
    optimiser.step()
    state = optimiser.state_dict()
    assert same(unpack(pack(state)), state)


@pytest.mark.parametrize("tree", [{"a": np.float32(1.0)}, [object()], {"a": {1, 2}}, {(1, 2): 3}, {None: 1}, b"raw"])
def test_what_could_not_be_read_back_is_not_written(tree: Any) -> None:
    with pytest.raises(TypeError, match="cannot serialise"):
        pack(tree)


def sample() -> Any:
    return {"weights": {"a": torch.randn(4, 3), "b": torch.arange(3)}, 7: [0.1, None, True, "text"], "n": 3}


def test_every_truncation_is_refused() -> None:
    data = pack(sample())
    for length in range(len(data)):
        with pytest.raises(CorruptedData):
            unpack(data[:length])
    with pytest.raises(CorruptedData):
        unpack(data + b"\0")


def test_every_flipped_bit_is_refused() -> None:
    tree = sample()
    data = pack(tree)
    for at in range(len(data)):
        for bit in range(8):
            altered = bytearray(data)
            altered[at] ^= 1 << bit
            try:
                found = unpack(bytes(altered))
            except CorruptedData:
                continue
            # The header is padded with blanks; another blank is the same header.
            assert same(found, tree), (at, bit)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 64,
        b"PK\x03\x04" + b"\0" * 64,
        save({"a": torch.zeros(2)}),
        save({"a": torch.zeros(2)}, {"tree": "{"}),
        save({"a": torch.zeros(2)}, {"tree": '{"__tensor__": "b"}'}),
        save({"a": torch.zeros(2)}, {"tree": '{"__items__": [["a"]]}'}),
        save({"a": torch.zeros(2)}, {"tree": '{"__items__": [[["a"], 1]]}'}),
        save({"a": torch.zeros(2)}, {"tree": '{"__items__": 3}'}),
        save({"a": torch.zeros(2)}, {"tree": '{"other": 3}'}),
    ],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptedData, match=f"came {len(data)} bytes that are not one"):
        unpack(data)


def test_saves_of_runs_begun_before_the_digest_are_read() -> None:
    data = save({"0": torch.ones(2)}, {"tree": '{"__items__": [["a", {"__tensor__": "0"}], [1, [null]]]}'})
    assert same(unpack(data), {"a": torch.ones(2), 1: [None]})


def test_any_reader_of_safetensors_can_open_a_save() -> None:
    assert torch.equal(load(pack({"a": torch.ones(2)}))["0"], torch.ones(2))


def test_same_is_bit_for_bit() -> None:
    zero, nan = torch.zeros(1), torch.full((1,), torch.nan)
    assert same([{"a": nan}, (1, 2), float("nan")], [{"a": nan.clone()}, [1, 2], float("nan")])
    for a, b in [(zero, -zero), (zero, zero.double()), (zero, zero[None]), (1, True), (1, 1.0), ({1: 2}, {"1": 2})]:
        assert not same(a, b)
