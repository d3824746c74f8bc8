"""`make dashboard-check`: the committed dashboard's queries and alerts, tried.

Every query is asked of a real Prometheus that scrapes a real service while robots live on it, and must return a number;
every alert must be evaluated; promtool checks and tests the rules. Needs `prometheus` and `promtool` (Debian: apt-get
install prometheus). The status is 1 if anything of that fails; what was found goes to out/dashboard.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from tests.contract.server import Server, serving
from tests.dashboard.robots import Robot

DASHBOARD = Path("deploy/grafana/mier.json")
PROMETHEUS = Path("deploy/prometheus")
RATE_INTERVAL = "1m"
"""What Grafana chooses for a scrape every 15 seconds."""
_READY_WITHIN_S = 60.0
_ASK_WITHIN_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make dashboard-check", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default %(default)s)")
    parser.add_argument("--robots", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("out/dashboard.json"))
    options = parser.parse_args()
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        print(f"make dashboard-check needs {' and '.join(missing)} (Debian: apt-get install prometheus)")
        return 2
    promtool = [_promtool(*arguments) for arguments in _PROMTOOL]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with (
            serving(options.checkpoints, data, "--check-every-s", "1", "--finetune-save-every-s", "2") as server,
            scraping(server, Path(folder)) as prometheus,
        ):
            with living(server, options.robots) as crowd:
                time.sleep(options.seconds)
                queries = ask_all(prometheus, expressions(json.loads(DASHBOARD.read_text())))
                alerts = rules(prometheus)
            done = sum((robot.tally for robot in crowd), Counter[str]())
    report = {
        "command": f"make dashboard-check DASHBOARD_ARGS='--seconds {options.seconds:g} --robots {options.robots}'",
        "load": {"robots": options.robots, "seconds": options.seconds, "counts": dict(done)},
        "queries": queries,
        "alerts": alerts,
        "promtool": promtool,
        "versions": {
            "python": platform.python_version(),
            "mier": version("mier"),
            "prometheus": _first_line("prometheus", "--version"),
        },
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "kernel": platform.release()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return _verdict(queries, alerts, promtool)


_PROMTOOL = (
    ("check", "config", "prometheus.yml"),
    ("check", "rules", "alerts.yml"),
    ("test", "rules", "alerts_test.yml"),
)


def _promtool(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr)
    return {"command": " ".join(("promtool", *arguments)), "status": done.returncode}


@contextmanager
def scraping(server: Server, folder: Path) -> Iterator[str]:
    """A Prometheus with the committed rules that scrapes the server every second; its address."""
    target = server.http.removeprefix("http://")
    config = (PROMETHEUS / "prometheus.yml").read_text().replace("127.0.0.1:8080", target)
    config = config.replace("10s", "1s").replace("alerts.yml", str((PROMETHEUS / "alerts.yml").absolute()))
    (folder / "prometheus.yml").write_text(config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    log = (folder / "prometheus.log").open("wb")
    arguments = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'prometheus'}"]
    process = subprocess.Popen(
        ["prometheus", *arguments, f"--web.listen-address={address}"], stdout=log, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + _READY_WITHIN_S
        while not _answers(f"http://{address}/-/ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"Prometheus did not start: {(folder / 'prometheus.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextmanager
def living(server: Server, robots: int) -> Iterator[list[Robot]]:
    """Robots over both transports, all at once, until the block ends."""
    stop = threading.Event()
    crowd = [Robot(server, ("http", "grpc")[i % 2], seed=i) for i in range(robots)]
    threads = [threading.Thread(target=robot.live, args=(stop,)) for robot in crowd]
    for thread in threads:
        thread.start()
    try:
        yield crowd
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    faults = [robot.fault for robot in crowd if robot.fault is not None]
    if faults:
        raise SystemExit(f"a robot fell: {faults[0]!r}")


def ask_all(prometheus: str, items: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """All queries, while robots live; those that find nothing once more, for a while: a fine-tune may have to end."""
    found = [ask(prometheus, *item) for item in items]
    deadline = time.monotonic() + _ASK_WITHIN_S
    while any(not one["series"] for one in found) and time.monotonic() < deadline:
        time.sleep(1.0)
        found = [one if one["series"] else ask(prometheus, *item) for one, item in zip(found, items, strict=True)]
    return found


def expressions(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """Title of the panel and query, as Grafana would send it, of every target; and those of the variables."""
    found = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
    filled = [
        (title, query.replace("$__rate_interval", RATE_INTERVAL).replace("$instance", ".*")) for title, query in found
    ]
    assert not any("$" in query for _, query in filled), "a variable that this does not know"
    return filled


def ask(prometheus: str, title: str, query: str) -> dict[str, Any]:
    """The query's answer: how many series, and the value of one that is a number."""
    reply = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, trust_env=False, timeout=30.0).json()
    if reply["status"] != "success":
        return {"panel": title, "query": query, "series": 0, "error": reply["error"]}
    values = [float(series["value"][1]) for series in reply["data"]["result"]]
    numbers = [value for value in values if math.isfinite(value)]
    return {"panel": title, "query": query, "series": len(numbers), "value": numbers[0] if numbers else None}


def rules(prometheus: str) -> list[dict[str, Any]]:
    """How each alert stands."""
    groups = httpx.get(f"{prometheus}/api/v1/rules", trust_env=False).json()["data"]["groups"]
    return [
        {"alert": rule["name"], "health": rule["health"], "state": rule["state"]}
        for group in groups
        for rule in group["rules"]
    ]


def _verdict(queries: list[dict[str, Any]], alerts: list[dict[str, Any]], promtool: list[dict[str, Any]]) -> int:
    empty = [item for item in queries if not item["series"]]
    sick = [item for item in alerts if item["health"] != "ok"]
    failed = [item for item in promtool if item["status"]]
    for item in empty:
        print(f"no data: {item['panel']}: {item['query']} {item.get('error', '')}")
    for item in sick:
        print(f"cannot be evaluated: {item['alert']}")
    for item in failed:
        print(f"failed: {item['command']}")
    print(f"{len(queries)} queries, {len(empty)} without data; {len(alerts)} alerts, {len(sick)} not evaluated")
    return 1 if empty or sick or failed or not queries or not alerts else 0


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
