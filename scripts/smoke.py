#!/usr/bin/env python3
"""`make smoke`: the wheel and the sdist, each installed into a clean environment and used.

    scripts/smoke.py [--out out/smoke]

1. builds both, in environments of their own, and a wheel of the sdist, which must hold the same files;
2. `mier` from the wheel, and again from the sdist: imports the client, and there is no torch, mujoco or server;
3. `mier[service,otel,postgres]` from the wheel (what the image has): `mier-serve` on a bundled checkpoint;
4. both base installs act through it, over both transports; it is stopped, and must end well.

The environment of 3 is kept in OUT/service: `make sbom` and `make audit` read it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
READY_WITHIN_S = 300.0
LIGHT = """
import importlib.util, sys
import mier_client, mier_proto.convert
heavy = ("torch", "mujoco", "gymnasium", "fastapi", "onnxruntime", "sqlalchemy")
found = [name for name in heavy if importlib.util.find_spec(name)]
sys.exit(f"the base install brought {found}" if found else 0)
"""
ACT = """
import sys
from mier_client import Client
for url in sys.argv[1:]:
    with Client.connect(url) as client:
        session = client.create_session("cheetah-vel-ood")
        acted = client.act(session.id, [0.0] * len(session.environment.observation_names), deterministic=True)
        print(url.partition(":")[0], "version", acted.policy_version, "action", acted.action)
"""


def run(*command: str | Path) -> None:
    """SystemExit with what it printed, if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode != 0:
        sys.exit(f"smoke: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def environment(folder: Path, requirement: str) -> Path:
    """A clean environment with this in it; its Python."""
    run(sys.executable, "-m", "venv", "--clear", folder)
    python = folder / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "install"]
    run(*pip, "--constraint", REPOSITORY / "constraints.txt", requirement)
    print(f"installed: {requirement}", flush=True)
    return python


def files_of(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def build(out: Path) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    python = environment(out / "build", "hatchling")
    run(python, "-m", "hatchling", "build", "--directory", out / "dist")
    [wheel], [sdist] = (out / "dist").glob("*.whl"), (out / "dist").glob("*.tar.gz")
    shutil.unpack_archive(sdist, out / "sdist", filter="data")
    [source] = (out / "sdist").iterdir()
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out / "again", source)
    [again] = (out / "again").glob("*.whl")
    if files_of(again) != files_of(wheel):
        sys.exit(f"smoke: the sdist's wheel differs: {sorted(files_of(again) ^ files_of(wheel))}")
    print(f"built: {wheel.name}, {sdist.name}; the wheel of the sdist holds the same files", flush=True)
    return wheel, sdist


def serve_and_act(service: Path, clients: list[Path], out: Path) -> None:
    """`mier-serve` of one environment, acted through from the others."""
    addresses, log = out / "addresses.json", out / "service.log"
    addresses.unlink(missing_ok=True)
    command = [service.with_name("mier-serve"), "--checkpoints", REPOSITORY / "checkpoints", "--data", out / "data"]
    command += ["--http-port", "0", "--grpc-port", "0", "--address-file", addresses]
    with log.open("wb") as file:
        serving = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file, cwd=out)
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not addresses.exists():
            if serving.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"smoke: mier-serve did not get ready:\n{log.read_text()}")
            time.sleep(0.2)
        reached = json.loads(addresses.read_text())
        for client in clients:
            urls = [f"grpc://{reached['grpc']}", reached["http"]]
            acted = subprocess.run([str(client), "-c", ACT, *urls], capture_output=True, text=True, check=False)
            if acted.returncode != 0:
                sys.exit(f"smoke: {client} could not act:\n{acted.stderr}")
            print(acted.stdout, end="", flush=True)
    finally:
        serving.terminate()
        status = serving.wait(60)
    if status != 0:
        sys.exit(f"smoke: mier-serve ended with status {status}:\n{log.read_text()}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/smoke"))
    out: Path = parser.parse_args().out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    wheel, sdist = build(out)
    bases = [environment(out / "base", str(wheel)), environment(out / "base-sdist", str(sdist))]
    for base in bases:
        run(base, "-c", LIGHT)
    print("the base install has neither torch nor mujoco, nor anything of the server", flush=True)
    service = environment(out / "service", f"{wheel}[service,otel,postgres]")
    serve_and_act(service, bases, out)
    print("smoke: all well")


if __name__ == "__main__":
    main()
