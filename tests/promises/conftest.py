"""The checkpoints and the launcher of processes that start fast, for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mier.types import Varies
from tests.contract import tiny
from tests.contract.conftest import REWARD
from tests.promises.launcher import Launcher
from tests.promises.robots import SECOND


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny.write(folder, REWARD, Varies.REWARD, seed=0)
    tiny.write(folder, SECOND, Varies.REWARD, seed=5, environment=REWARD)
    return folder


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with Launcher(tmp_path_factory.mktemp("launcher") / "log").running() as made:
        yield made
