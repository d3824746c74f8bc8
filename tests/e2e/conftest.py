"""One real service on the bundled checkpoints for all end-to-end tests, started as `make demo` starts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mier.checkpoint import CHECKPOINT_FILES, Checkpoint, decode
from mier_client import Client, Timeouts
from mier_mujoco.server_process import Address, running_server

FAMILY = "cheetah-vel-ood"
# As the service itself reads them: MIER_CHECKPOINTS, else the bundled ones.
CHECKPOINTS = Path(os.environ.get("MIER_CHECKPOINTS", Path(__file__).parents[2] / "checkpoints"))
PATIENT = Timeouts(act_s=20.0, call_s=60.0, adapt_s=60.0, watch_s=120.0)


@pytest.fixture(scope="session")
def service() -> Iterator[Address]:
    with running_server(["--checkpoints", str(CHECKPOINTS)], ready_within_s=120.0) as address:
        yield address


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, service: Address) -> str:
    """The service over each transport."""
    return f"grpc://{service.grpc}" if request.param == "grpc" else service.http


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client.connect(url, PATIENT) as connected:
        yield connected


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return decode({name: (CHECKPOINTS / FAMILY / name).read_bytes() for name in CHECKPOINT_FILES})
