"""mier-train: list, run, oracle, evaluate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from mier_trainer.bundle import bundle
from mier_trainer.device import bf16_pays, pick_device
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.run_folder import RunFolder
from mier_trainer.runs import RUNS, Run
from mier_trainer.train_shell import train

app = tyro.extras.SubcommandApp()

RunName = Annotated[str, tyro.conf.Positional]


def _default_root() -> Path:
    return Path(os.environ.get("MIER_RUNS", "runs"))


@app.command(name="list")
def list_runs() -> None:
    """Show the named runs."""
    table = Table("run", "family", "variant", "epochs", "summary")
    for run in RUNS.values():
        table.add_row(run.name, run.family, run.configuration.name, str(run.training.epochs), run.summary)
    Console().print(table)


@app.command(name="run")
def run(name: RunName, seed: int = 0, runs: Path | None = None, device: str = "auto", precision: str = "auto") -> None:
    """Meta-train a named run, or go on with it.

    Args:
        name: one of `mier-train list`.
        seed: of everything random.
        runs: folder of runs (default $MIER_RUNS, else ./runs).
        device: auto, cpu or cuda.
        precision: auto, fp32 or bf16.
    """
    chosen = _named(name)
    where = pick_device(device)
    # Tiny networks: a second thread costs more than it brings, and disturbs whoever shares the machine.
    torch.set_num_threads(1)
    bf16 = bf16_pays(where) if precision == "auto" else precision == "bf16"
    train(chosen, seed, runs or _default_root(), where, bf16)


@app.command(name="bundle")
def bundle_run(
    name: RunName, seed: int = 0, runs: Path | None = None, into: Path = Path("checkpoints"), episodes: int = 1200
) -> None:
    """Make the checkpoint folder of a run's newest save.

    Args:
        name: one of `mier-train list`.
        seed: the run's seed.
        runs: folder of runs (default $MIER_RUNS, else ./runs).
        into: folder of checkpoints.
        episodes: whole episodes kept for relabelling (about 10 KB each).
    """
    torch.set_num_threads(1)
    folder = RunFolder.open(runs or _default_root(), name, seed)
    saved = folder.load()
    if saved is None:
        raise SystemExit(
            f"run '{name}' with seed {seed} has no save under {folder.path}; start it with: mier-train run {name}"
        )
    trainer = MetaTrainer.start(_named(name), seed, torch.device("cpu"))
    trainer.load_state_dict(saved)
    Console().print(f"wrote {bundle(trainer, folder, into, episodes)}")


def _named(name: str) -> Run:
    if name not in RUNS:
        raise SystemExit(f"unknown run '{name}'; expected one of {', '.join(RUNS)}")
    return RUNS[name]


def main() -> None:
    app.cli(prog="mier-train")


if __name__ == "__main__":
    main()
