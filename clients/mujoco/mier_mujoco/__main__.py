"""mier-eval: evaluates the out-of-distribution tasks of a family against a running service."""

from __future__ import annotations

import json
import sys

import tyro
from rich.console import Console

from mier_client import Client, MierError, Timeouts
from mier_mujoco import report
from mier_mujoco.evaluation import evaluate
from mier_mujoco.progress import Display
from mier_mujoco.results import Row
from mier_mujoco.settings import Settings
from mier_mujoco.simulator import simulator_warnings

TIMEOUTS = Timeouts(act_s=10.0, call_s=30.0, adapt_s=300.0)
"""Patient: a machine that fine-tunes on all its cores is no reason to give an evaluation up."""


def run(settings: Settings, console: Console) -> list[Row]:
    """One evaluation from settings to files; the rows of results.json."""
    with Client.connect(settings.url, TIMEOUTS, api_key=settings.api_key(), tls=settings.tls) as client:
        with Display(console, settings) as display, simulator_warnings(display.note):
            found = evaluate(client, settings, display.of)
        return report.write(settings, found, console)


def main() -> None:
    """The command line; bad arguments and a service's refusals are told in one line."""
    console = Console(stderr=True)
    try:
        settings = tyro.cli(Settings, prog="mier-eval", description=Settings.__doc__)
        rows = run(settings, console)
    except (ValueError, MierError) as error:
        console.print(f"mier-eval: {error}", style="red", highlight=False, markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("mier-eval: interrupted; its sessions on the service are deleted")
        sys.exit(130)
    if settings.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
