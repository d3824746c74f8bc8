"""The Dockerfile, as far as it can be tried without an engine: hadolint, what it sets, and the health check.

scripts/docker_steps.py runs its steps; that takes minutes, so not here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from mier.types import Varies
from mier_service.access.exposure import exposure_of
from tests.contract.server import serving
from tests.contract.tiny import write
from tests.deploy.settings import taken

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "Dockerfile"


def environment() -> dict[str, str]:
    """What ENV of the last stage sets."""
    stage = DOCKERFILE.read_text().rpartition("\nFROM ")[2]
    return dict(re.findall(r"^ENV (\w+)=(.*)$", stage, re.MULTILINE))


def test_hadolint_finds_nothing() -> None:
    """Seen to fail on `RUN apt-get install curl` and on an ENTRYPOINT in shell form."""
    done = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_starts_with_settings_that_the_service_accepts() -> None:
    config = taken(environment())
    assert config.host == "0.0.0.0"
    assert not exposure_of(config).keys_required
    assert exposure_of(config.model_copy(update={"keys": "required"})).keys_required


def test_it_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert users == ["10001:10001"]


def test_what_it_copies_is_let_through() -> None:
    let_through = re.findall(r"^!(.*)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE)
    assert all((REPOSITORY / name).exists() for name in let_through)
    # What the wheel is built from, but for the bench, which nobody runs in a container.
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {Path(package).parts[0] for package in wheel["packages"]} - {"bench"} <= set(let_through)


def _probe(port: str) -> subprocess.CompletedProcess[str]:
    probe = [sys.executable, "-m", "mier_service.probe"]
    return subprocess.run(probe, env={"MIER_HTTP_PORT": port}, capture_output=True, text=True, check=False)


def test_the_health_check_is_healthy_when_the_service_is_ready(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints", "point", Varies.REWARD)
    with serving(tmp_path / "checkpoints", tmp_path / "data") as server:
        port = server.http.rpartition(":")[2]
        up = _probe(port)
    assert (up.returncode, up.stderr) == (0, "")
    assert '"status":"ready"' in up.stdout
    down = _probe(port)
    assert (down.returncode, down.stderr) == (1, "")
    assert "no answer" in down.stdout
