"""The README's client example does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mier_client import Client, Promotion
from mier_mujoco.server_process import Address

README = Path(__file__).parents[2] / "README.md"


def test_the_client_example_runs(service: Address) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    code = "".join(blocks)
    assert "grpc://127.0.0.1:50051" in code
    code = code.replace("127.0.0.1:50051", service.grpc).replace(
        "finetune(session.id)", "finetune(session.id, updates=20)"
    )
    rng = np.random.default_rng(0)
    names = {
        "observation": np.zeros(17, np.float32),
        "observations": rng.normal(size=(100, 17)),
        "next_observations": rng.normal(size=(100, 17)),
        "actions": rng.uniform(-1.0, 1.0, size=(100, 6)),
        "rewards": rng.normal(size=100),
        "versions": 1,
    }
    exec(code, names)
    client, session = names["client"], names["session"]
    assert isinstance(client, Client)
    *_, tuned = client.list_versions(session.id)  # type: ignore[attr-defined]
    # Noise is no reason to act differently: a fifth of 100 rows is too few for the gate.
    assert (tuned.number, tuned.promotion) == (3, Promotion.INSUFFICIENT_DATA)
    assert client.get_session(session.id).active_version == 2  # type: ignore[attr-defined]
    client.delete_session(session.id)  # type: ignore[attr-defined]
    client.close()
