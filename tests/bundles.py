"""Small signed bundles, made without the service: for tests of who reads them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from mier_proto.bundles import ActsWith, Manifest, pack

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SESSION = "s" * 32
NOW_S = 1_800_000_000.0
DIM = 8
"""Of observation, action and context."""


def graph(gain: float) -> bytes:
    """action = gain * observation + context + noise, each [n, DIM]."""
    names = ("observation", "context", "noise")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", DIM]) for name in (*names, "action")]
    nodes = [
        helper.make_node("Mul", ["observation", "gain"], ["gained"]),
        helper.make_node("Add", ["gained", "context"], ["mean"]),
        helper.make_node("Add", ["mean", "noise"], ["action"]),
    ]
    made = helper.make_graph(
        nodes, "policy", values[:3], values[3:], [numpy_helper.from_array(np.array(gain, np.float32), "gain")]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


GRAPHS = {hashlib.sha256(data).hexdigest(): data for data in (graph(1.0), graph(2.0))}
ONCE, TWICE = GRAPHS


def acts_with(version: int, context: float, name: str = ONCE) -> ActsWith:
    return ActsWith(version, f"{version:064x}", name, (context,) * DIM)


PLAIN = Manifest(
    session_id=SESSION,
    serial=1,
    acts=acts_with(1, 0.0),
    base=None,
    checkpoint_hash="0" * 64,
    seed=3,
    environment="tiny",
    observation_names=tuple(f"o{i}" for i in range(DIM)),
    action_names=tuple(f"a{i}" for i in range(DIM)),
    dt_s=0.05,
    action_low=(-100.0,) * DIM,
    action_high=(100.0,) * DIM,
    action_max_change=(),
    limited=False,
    fallback="",
    create_time_unix_us=round(1e6 * NOW_S),
    max_age_s=60.0,
)


def serial(number: int, context: float, name: str = ONCE) -> Manifest:
    """What acts from change `number` on: a version of that number, whose mean action at zero is `context`."""
    return replace(PLAIN, serial=number, acts=acts_with(number, context, name))


def signed(manifest: Manifest = PLAIN, key: Ed25519PrivateKey = KEY, left_out: tuple[str, ...] = ()) -> bytes:
    """The file."""
    parts = [b"" if name in left_out else GRAPHS[name] for name in manifest.graphs]
    return pack(manifest.to_bytes(), key.sign, parts)
