"""Bundles: what was signed is read, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mier_client.edge import BundleReader, BundleRefused
from mier_proto.bundles import FORMAT, MAGIC, pack
from tests.bundles import GRAPHS, KEY, ONCE, OTHER_KEY, PLAIN, PUBLIC, SESSION, TWICE, acts_with, signed
from tests.fuzzing import fuzz

BOTH = replace(PLAIN, base=acts_with(1, 0.5, TWICE), acts=acts_with(7, -0.25, ONCE), fallback="base_policy")
READER = BundleReader(PUBLIC, SESSION)
WHOLE = signed(BOTH)


def refused(reason: str) -> pytest.RaisesExc[BundleRefused]:
    return pytest.RaisesExc(BundleRefused, check=lambda error: error.reason == reason)


def test_what_was_signed_is_read() -> None:
    read = READER.read(WHOLE)
    assert read.manifest == BOTH
    assert read.graphs == GRAPHS
    again = READER.read(read.without_graphs(), read.graphs.get)
    assert (again.manifest, again.graphs) == (read.manifest, read.graphs)


def test_one_graph_for_both_is_in_it_once() -> None:
    shared = replace(BOTH, base=acts_with(1, 0.5, ONCE))
    assert len(signed(shared)) < len(WHOLE)
    assert READER.read(signed(shared)).graphs == {ONCE: GRAPHS[ONCE]}


@fuzz(300)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    """Broken on purpose: the signature over the manifest without its length; seen: a bundle that is read although a
    byte of it changed."""
    changed = bytearray(WHOLE)
    changed[at] ^= change
    with pytest.raises(BundleRefused):
        READER.read(bytes(changed))


def test_every_bit_before_the_graphs_counts() -> None:
    head = len(READER.read(WHOLE).head)
    for at in range(head + 4):
        for bit in range(8):
            changed = bytearray(WHOLE)
            changed[at] ^= 1 << bit
            with pytest.raises(BundleRefused):
                READER.read(bytes(changed))


@fuzz(100)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_part_of_it_is_refused(count: int) -> None:
    with refused("BUNDLE_DAMAGED"):
        READER.read(WHOLE[:count])


def test_more_than_it_is_refused() -> None:
    with refused("BUNDLE_DAMAGED"):
        READER.read(WHOLE + b"\0")
    with refused("BUNDLE_TOO_LARGE"):
        BundleReader(PUBLIC, SESSION, max_bytes=len(WHOLE) - 1).read(WHOLE)


def test_who_signs_and_for_whom_matters() -> None:
    with refused("BUNDLE_NOT_SIGNED"):
        READER.read(signed(BOTH, OTHER_KEY))
    other = OTHER_KEY.public_key().public_bytes_raw().hex()
    both = BundleReader([PUBLIC, other], SESSION)
    assert both.read(signed(BOTH, OTHER_KEY)).manifest == both.read(WHOLE).manifest
    with refused("BUNDLE_OTHER_SESSION"):
        BundleReader(PUBLIC, "t" * 32).read(WHOLE)
    for wrong in ("", "00", "zz" * 32, PUBLIC + "00"):
        with pytest.raises(ValueError, match="64 hex digits"):
            BundleReader(wrong, SESSION)


def test_a_graph_that_is_neither_in_it_nor_here_is_refused() -> None:
    part = signed(BOTH, left_out=(TWICE,))
    with refused("BUNDLE_DAMAGED"):
        READER.read(part)
    assert READER.read(part, GRAPHS.get).graphs == GRAPHS
    with refused("BUNDLE_DAMAGED"):
        READER.read(part, lambda _: GRAPHS[ONCE])


@pytest.mark.parametrize(
    "change", [{"format": FORMAT + 1}, {"serial": "many"}, {"acts": None}, {"action_low": 3}, {"session_id": ...}]
)
def test_a_manifest_of_another_release_is_refused(change: dict[str, object]) -> None:
    found = json.loads(PLAIN.to_bytes()) | change
    manifest = json.dumps({name: value for name, value in found.items() if value is not ...}).encode()
    with refused("BUNDLE_UNUSABLE"):
        READER.read(pack(manifest, KEY.sign, [GRAPHS[ONCE]]))
    later = json.dumps(json.loads(PLAIN.to_bytes()) | {"mood": "good"}).encode()
    assert READER.read(pack(later, KEY.sign, [GRAPHS[ONCE]])).manifest == PLAIN


def test_nothing_is_parsed_that_is_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("mier_proto.bundles.json.loads", asked.append)
    for data in (signed(BOTH, OTHER_KEY), MAGIC + bytes(200), b"", WHOLE[:90]):
        with pytest.raises(BundleRefused):
            READER.read(data)
    assert asked == []
