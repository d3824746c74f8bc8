"""The wheel and the sdist: what is in them, and that it is enough. `make smoke` installs them in clean environments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

from mier.types import Varies
from tests.contract.tiny import write

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both, by their suffix; of the working tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def installed(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files where Python can import them; what it depends on is in the environment of the tests."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(built[".whl"]).extractall(folder)
    return folder


def _tracked(*patterns: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return set(listed.stdout.splitlines())


def test_every_file_of_every_package_is_in_the_wheel(built: dict[str, Path]) -> None:
    """Migrations, studies, the schema, stubs and `py.typed` among them."""
    inside = {name for name in zipfile.ZipFile(built[".whl"]).namelist() if ".dist-info/" not in name}
    rooms = ("service/", "trainer/", "proto/", "clients/python/", "clients/mujoco/", "bench/")
    wanted = set()
    for path in _tracked("mier", *(f"{room}*/**" for room in rooms)):
        room = next((room for room in rooms if path.startswith(room)), "")
        wanted.add(path.removeprefix(room))
    assert inside == wanted
    assert {
        "mier_service/store/migrations/versions/r0001_first_tables.py",
        "mier_trainer/studies/fig3.toml",
        "mier_proto/v1/adaptation.proto",
        "mier_client/py.typed",
    } <= inside


def test_the_metadata_is_right(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        info = f"mier-{version('mier')}.dist-info"
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        assert wheel.read(f"{info}/licenses/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()
        scripts = wheel.read(f"{info}/entry_points.txt").decode()
    assert (metadata["Name"], metadata["License-Expression"]) == ("mier", "Apache-2.0")
    base = [name for name in metadata.get_all("Requires-Dist", []) if "extra ==" not in name]
    assert not [name for name in base if re.match(r"(torch|mujoco|gymnasium|onnx)", name)]
    assert {line.split(" ")[0] for line in scripts.splitlines() if " = " in line} == {
        "mier-serve",
        "mierctl",
        "mier-train",
        "mier-eval",
    }


def test_versions_agree() -> None:
    """One version: of the distribution, the chart, and the image that compose builds."""
    chart = (REPOSITORY / "deploy/helm/mier/Chart.yaml").read_text()
    compose = (REPOSITORY / "deploy/compose/compose.yaml").read_text()
    [stated] = re.findall(r'^version = "(.*)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert re.findall(r"^(?:version|appVersion): (.*)$", chart, re.MULTILINE) == [stated, stated]
    assert f"image: mier:{stated}" in compose


def test_the_sdist_holds_what_is_committed_and_nothing_else(built: dict[str, Path]) -> None:
    with tarfile.open(built[".gz"]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    new = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    assert inside - {"PKG-INFO"} - set(new.stdout.splitlines()) == _tracked()


SERVED = """
import sys
from pathlib import Path
import mier_client, mier_proto, mier_service
from mier_client import Client
site = Path(sys.argv[1])
for package in (mier_client, mier_proto, mier_service):
    assert Path(package.__file__).is_relative_to(site), package.__file__
from mier_mujoco.server_process import running_server
with running_server(["--checkpoints", sys.argv[2]], ready_within_s=600.0) as address:
    for url in (f"grpc://{address.grpc}", address.http):
        with Client.connect(url) as client:
            session = client.create_session("point")
            print(client.act(session.id, [0.0, 0.0, 0.0, 0.0], deterministic=True).policy_version)
"""


def test_a_service_and_a_client_run_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    write(tmp_path / "checkpoints", "point", Varies.REWARD)
    served = subprocess.run(
        [sys.executable, "-P", "-c", SERVED, str(installed), str(tmp_path / "checkpoints")],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert served.returncode == 0, served.stderr
    assert served.stdout.split() == ["1", "1"]


BASE = """
import importlib.abc, sys
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split(","):
            raise ModuleNotFoundError(f"{name} is not in the base install")
sys.meta_path.insert(0, Wall())
import mier_client, mier_proto.convert
from pathlib import Path
assert Path(mier_client.__file__).is_relative_to(sys.argv[1])
"""


def test_the_base_install_needs_neither_torch_nor_mujoco(installed: Path) -> None:
    kept_out = "torch,mujoco,gymnasium,onnx,onnxruntime,fastapi,sqlalchemy,pydantic,safetensors"
    command = [sys.executable, "-P", "-c", BASE, str(installed), kept_out]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(installed)}, cwd=installed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
