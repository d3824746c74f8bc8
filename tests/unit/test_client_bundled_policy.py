"""Acting by bundles: swapped as a whole, never back, and within their age; what is declared acts after that."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mier_client.edge import BundledPolicy, BundleReader, BundleRefused, BundleTooOld, Edge, exploration_noise
from mier_client.errors import Unavailable
from mier_client.values import FallbackKind, FallbackReason
from mier_proto.bundles import Manifest, Unpacked, pack
from tests.bundles import (
    DIM,
    KEY,
    NOW_S,
    ONCE,
    OTHER_KEY,
    PLAIN,
    PUBLIC,
    SESSION,
    TWICE,
    acts_with,
    serial,
    signed,
)

ZERO = np.zeros(DIM, np.float32)
ONE = np.ones(DIM, np.float32)
READER = BundleReader(PUBLIC, SESSION)


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def bundle(manifest: Manifest) -> Unpacked:
    return READER.read(signed(manifest))


def policy(manifest: Manifest, clock: Clock | None = None, **named: float) -> BundledPolicy:
    return BundledPolicy(bundle(manifest), clock=clock or Clock(), **named)  # type: ignore[arg-type]


def test_it_acts_by_the_newest_and_says_so() -> None:
    acting = policy(serial(1, 0.25))
    assert acting.act(ONE).tolist() == [1.25] * DIM
    acting.take(bundle(serial(2, 0.5, TWICE)))
    assert acting.act(ONE).tolist() == [2.5] * DIM
    acted = acting.acted
    assert acted is not None
    assert (acted.policy_version, acted.weights_hash, acted.fallback, acted.limited) == (2, f"{2:064x}", None, False)
    acting.take(bundle(replace(serial(3, 0.25), acts=acts_with(1, 0.25))))  # rolled back by an operator: news
    assert (acting.act(ONE).tolist(), acting.version, acting.step) == ([1.25] * DIM, 1, 3)


def test_exploring_is_the_sessions() -> None:
    acting = BundledPolicy(bundle(PLAIN), explore=True, episode=2, clock=Clock())
    acting.act(ZERO)
    np.testing.assert_array_equal(acting.act(ZERO), exploration_noise(PLAIN.seed, 2, 1, DIM))
    np.testing.assert_array_equal(acting.predict(ZERO, deterministic=True)[0], ZERO)


@pytest.mark.parametrize("number", [1, 2])
def test_what_acted_before_is_refused(number: int) -> None:
    """Broken on purpose: without the serial; seen: version 1 acts again, though nobody rolled back."""
    acting = policy(serial(3, 0.5))
    with pytest.raises(BundleRefused, match=f"expected serial 3 or above, got {number}"):
        acting.take(bundle(serial(number, 0.25)))
    with pytest.raises(BundleRefused, match="BUNDLE_OLDER"):
        acting.take(bundle(replace(PLAIN, serial=3)))
    assert (acting.act(ZERO)[0], acting.version) == (0.5, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"acts": acts_with(2, float("nan"))},
        {"acts": replace(acts_with(2, 0.0), context=(0.0,))},
        {"action_names": ("a",)},
        {"action_low": (200.0,) * DIM},
        {"fallback": "base_policy"},
        {"fallback": "dance"},
    ],
)
def test_what_cannot_act_is_refused(change: dict[str, object]) -> None:
    acting = policy(serial(1, 0.5))
    with pytest.raises(BundleRefused, match="BUNDLE_UNUSABLE"):
        acting.take(bundle(replace(serial(2, 0.0), **change)))  # type: ignore[arg-type]
    assert acting.act(ZERO)[0] == 0.5


def test_a_graph_that_is_none_is_refused() -> None:
    manifest = replace(PLAIN, acts=replace(PLAIN.acts, graph=hashlib.sha256(b"").hexdigest()))
    with pytest.raises(BundleRefused, match="BUNDLE_UNUSABLE"):
        BundledPolicy(READER.read(pack(manifest.to_bytes(), KEY.sign, [b""]), {manifest.acts.graph: b""}.get))


def test_limits_are_kept_across_bundles() -> None:
    """Broken on purpose: with last actions of each bundle's own; seen: 1.0 right after the swap."""
    limits = {"action_low": (-1.0,) * DIM, "action_high": (1.0,) * DIM, "action_max_change": (0.125,) * DIM}
    acting = policy(replace(serial(1, 0.0), limited=True, **limits))  # type: ignore[arg-type]
    actions = [acting.act(ZERO)[0]]
    acting.take(bundle(replace(serial(2, 5.0), limited=True, **limits)))  # type: ignore[arg-type]
    actions += [acting.act(ZERO)[0] for _ in range(10)]
    assert actions == [0.0, *[0.125 * i for i in range(1, 9)], 1.0, 1.0]
    assert acting.limited


TOO_OLD = {
    "incumbent": (FallbackKind.INCUMBENT, 0.5, 4),
    "base_policy": (FallbackKind.BASE_POLICY, -0.75, 1),
    "hold_last": (FallbackKind.HOLD_LAST, 1.5, 0),
    "hold_zero": (FallbackKind.HOLD_ZERO, 0.0, 0),
}


@pytest.mark.parametrize("declared", TOO_OLD)
@pytest.mark.parametrize("later_s", [60.0, -60.1])
def test_too_old_is_answered_by_what_was_declared(declared: str, later_s: float) -> None:
    """`later_s` below 0: the clock is behind the bundle's, and its age cannot be told."""
    kind, value, version = TOO_OLD[declared]
    clock = Clock()
    manifest = replace(serial(4, 0.5), fallback=declared, base=acts_with(1, -0.75, TWICE))
    acting = policy(manifest, clock)
    assert acting.act(ONE)[0] == 1.5
    clock.now_s += 0.9 * later_s
    assert (acting.act(ONE)[0], acting.fallback) == (1.5, None)
    clock.now_s = NOW_S + later_s
    assert (acting.act(ZERO).tolist(), acting.version) == ([value] * DIM, version)
    assert acting.fallback is not None
    assert (acting.fallback.kind, acting.fallback.reason) == (kind, FallbackReason.TOO_OLD)
    acting.take(bundle(replace(manifest, create_time_unix_us=round(1e6 * clock.now_s))))
    assert (acting.act(ZERO)[0], acting.version) == (0.5, 4)
    assert acting.acted is not None
    assert acting.acted.fallback is None


def test_holds_keep_the_limits_too() -> None:
    clock = Clock()
    limits = {"action_low": (0.25,) * DIM, "action_high": (2.0,) * DIM, "action_max_change": (0.5,) * DIM}
    acting = policy(replace(serial(1, 2.0), fallback="hold_zero", limited=True, **limits), clock)  # type: ignore[arg-type]
    acting.act(ZERO)
    clock.now_s += 60.0
    assert [acting.act(ZERO)[0] for _ in range(5)] == [1.5, 1.0, 0.5, 0.25, 0.25]


def test_too_old_without_a_declaration_is_refused() -> None:
    clock = Clock()
    acting = policy(PLAIN, clock, max_age_s=10.0)
    acting.act(ZERO)
    clock.now_s += 10.0
    with pytest.raises(BundleTooOld, match="declared no fallback"):
        acting.act(ZERO)
    assert (acting.step, acting.age_s) == (1, 10.0)
    forever = policy(replace(PLAIN, max_age_s=None), clock)
    clock.now_s += 1e9
    assert forever.act(ZERO)[0] == 0.0


def test_an_action_is_by_one_version_as_a_whole() -> None:
    """Broken on purpose: with one set of buffers whose context is written over; seen: actions of two versions in one,
    or under the wrong number."""
    bundles = [bundle(serial(n, float(n), (ONCE, TWICE)[n % 2])) for n in range(1, 121)]
    acting, started = BundledPolicy(bundles[0], clock=Clock()), threading.Event()

    def swap() -> None:
        started.wait()
        for each in bundles[1:]:
            acting.take(each)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    while True:
        over = not swapping.is_alive()
        action = acting.act(ZERO)
        assert action.tolist() == [float(acting.version)] * DIM
        seen.add(acting.version)
        started.set()
        if over:
            break
    assert len(seen) > 2
    assert acting.version == 120


def test_after_a_reboot_it_acts_by_the_last_good_bundle(tmp_path: Path) -> None:
    with Edge(tmp_path, SESSION, PUBLIC, bundle=signed(serial(1, 0.25)), clock=Clock()) as edge:
        edge.take(signed(serial(2, 0.5, TWICE)))
        for bad in (signed(serial(1, 0.25)), signed(serial(3, 0.0), OTHER_KEY), signed(serial(3, 0.0))[:-1], b""):
            with pytest.raises(BundleRefused):
                edge.take(bad)
        edge.take(signed(serial(3, 0.75, TWICE), left_out=(TWICE,)))
        assert edge.policy.act(ZERO)[0] == 0.75
    assert {path.name for path in tmp_path.glob("*.onnx")} == {f"{TWICE}.onnx"}
    with Edge(tmp_path, SESSION, PUBLIC, clock=Clock()) as edge:
        assert (edge.policy.act(ONE)[0], edge.policy.version) == (2.75, 3)
    with Edge(tmp_path, SESSION, PUBLIC, bundle=signed(serial(1, 0.25)), clock=Clock()) as edge:
        assert edge.policy.act(ONE)[0] == 2.75  # the file is older than what it has


def test_a_damaged_copy_is_not_acted_with(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="NO_BUNDLE"):
        Edge(tmp_path, SESSION, PUBLIC)
    first = signed(serial(1, 0.25))
    Edge(tmp_path, SESSION, PUBLIC, bundle=first).close()
    for name in ("bundle", f"{ONCE}.onnx"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-1])
        with pytest.raises(BundleRefused, match="BUNDLE_DAMAGED"):
            Edge(tmp_path, SESSION, PUBLIC)
        with Edge(tmp_path, SESSION, PUBLIC, bundle=first, clock=Clock()) as edge:
            assert edge.policy.act(ONE)[0] == 1.25
        assert (tmp_path / name).read_bytes() == whole
