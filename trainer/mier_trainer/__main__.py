"""mier-train: list, run, bundle, calibrate, gate, ood, oracle, evaluate, study, figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from mier_envs.families import FAMILIES
from mier_trainer.bundle import bundle, load
from mier_trainer.calibrate_shell import calibrate
from mier_trainer.change_study_shell import run_change_study
from mier_trainer.device import bf16_pays, pick_device
from mier_trainer.evaluate_shell import Arm, run_evaluation
from mier_trainer.figures_shell import draw_figures
from mier_trainer.gate_study_shell import run_gate_study
from mier_trainer.lookup import UnknownName, find_family, find_run
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.ood_study_shell import run_ood_study
from mier_trainer.oracle_shell import train_oracle
from mier_trainer.output import rates_table, show
from mier_trainer.run_folder import RunFolder
from mier_trainer.runs import RUNS, PearlRun
from mier_trainer.study import studies
from mier_trainer.study_shell import run_study
from mier_trainer.train_shell import train

app = tyro.extras.SubcommandApp()

RunName = Annotated[str, tyro.conf.Positional]
FamilyName = Annotated[str, tyro.conf.Positional]


def _default_root() -> Path:
    return Path(os.environ.get("MIER_RUNS", "runs"))


@app.command(name="list")
def list_runs(json: bool = False) -> None:
    """Show the named runs.

    Args:
        json: as JSON in place of the table.
    """
    rows = [
        {
            "run": run.name,
            "family": run.family,
            "variant": run.configuration.name,
            "epochs": run.training.epochs,
            "summary": run.summary,
        }
        for run in RUNS.values()
    ]
    show(rows, rates_table(rows), json)


@app.command(name="run")
def run(
    name: RunName,
    seed: int = 0,
    runs: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> None:
    """Meta-train a named run, or go on with it.

    Args:
        name: one of `mier-train list`, or module:name of your own.
        seed: of everything random.
        runs: folder of runs (default $MIER_RUNS, else ./runs).
        device: auto, cpu or cuda.
        precision: auto, fp32 or bf16.
    """
    chosen = find_run(name)
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
        name: one of `mier-train list`, or module:name of your own.
        seed: the run's seed.
        runs: folder of runs (default $MIER_RUNS, else ./runs).
        into: folder of checkpoints.
        episodes: whole episodes kept for relabelling (about 10 KB each).
    """
    torch.set_num_threads(1)
    chosen = find_run(name)
    if isinstance(chosen, PearlRun):
        raise SystemExit(f"run '{name}' trains a baseline, which has no checkpoint; name a run of ours")
    folder = RunFolder.open(runs or _default_root(), chosen.name, seed)
    saved = folder.load()
    if saved is None:
        raise SystemExit(
            f"run '{name}' with seed {seed} has no save under {folder.path}; start it with: mier-train run {name}"
        )
    trainer = MetaTrainer.start(chosen, seed, torch.device("cpu"))
    trainer.load_state_dict(saved)
    Console().print(f"wrote {bundle(trainer, folder, into, episodes)}")


@app.command(name="calibrate")
def calibrate_checkpoint(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    parts: tuple[Literal["gate", "ood"], ...] = ("gate", "ood"),
    tasks: int = 6,
    steps: int = 15_000,
    seed: int = 0,
    episodes: int = 10,
    family: str | None = None,
) -> None:
    """Give a checkpoint what it should know of its own errors, measured in the simulator: the gate that judges
    fine-tuned policies, and what its out-of-distribution percentiles compare with.

    Args:
        checkpoint: folder of a checkpoint; it is rewritten.
        parts: which of the two; what is left out stays as it is.
        tasks: at most so many of the family's calibration tasks.
        steps: regression steps of each of the gate's networks; a gate that is there already is kept.
        seed: of everything random.
        episodes: deterministic episodes that measure a candidate's true return.
        family: module:name of your own family (default: the study's of the checkpoint's own name).
    """
    torch.set_num_threads(1)
    chosen = find_family(family or str(load(checkpoint).manifest["family"]))
    found = calibrate(checkpoint, chosen, parts=parts, tasks=tasks, steps=steps, seed=seed, episodes=episodes)
    Console().print(f"calibrated {checkpoint}: {found.gate}; {len(found.ood.distances) if found.ood else 0} tasks seen")


@app.command(name="ood")
def ood(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    results: Path,
    inside: int = 100,
    each: int = 5,
    family: str | None = None,
    json: bool = False,
) -> None:
    """Measure how well a checkpoint's out-of-distribution percentile tells tasks apart.

    Args:
        checkpoint: folder of a calibrated checkpoint.
        results: JSONL file of one row a session; a checkpoint already in it is not run again.
        inside: fresh tasks of the training distribution.
        each: sessions on each of the family's tasks beyond it.
        family: module:name of your own family (default: the study's of the checkpoint's own name).
        json: print the rows as JSON in place of the table.
    """
    torch.set_num_threads(1)
    loaded = load(checkpoint)
    chosen = find_family(family or str(loaded.manifest["family"]))
    run_ood_study(loaded, chosen, results, inside, each, as_json=json)


@app.command(name="gate")
def gate(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    results: Path,
    seeds: tuple[int, ...] = (0, 1, 2),
    tasks: tuple[int, ...] = (),
    episodes: int = 10,
    family: str | None = None,
    json: bool = False,
) -> None:
    """Measure how often a checkpoint's gate is right, on test tasks, with good candidates and broken ones.

    Args:
        checkpoint: folder of a calibrated checkpoint.
        results: JSONL file of one row a candidate; a (task, seed) already in it is not run again.
        seeds: of exploration, fine-tunes and evaluation.
        tasks: indices of test tasks (default: all).
        episodes: deterministic episodes that measure a candidate's true return.
        family: module:name of your own family (default: the study's of the checkpoint's own name).
        json: print the rows as JSON in place of the table.
    """
    torch.set_num_threads(1)
    loaded = load(checkpoint)
    chosen = find_family(family or str(loaded.manifest["family"]))
    some = [chosen.test_tasks[i] for i in tasks] if tasks else list(chosen.test_tasks)
    run_gate_study(loaded, chosen, results, some, seeds, episodes, as_json=json)


@app.command(name="change")
def change(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    results: Path,
    sessions: int = 20,
    calm: int = 2,
    changed: int = 2,
    family: str | None = None,
    json: bool = False,
) -> None:
    """Measure how soon a task that changes in mid-run is noticed, and how often one that does not is said to have.

    Args:
        checkpoint: folder of a checkpoint.
        results: JSONL file of one row an episode; a session already in it is not run again.
        sessions: each with a task of the training distribution first, and then any task.
        calm: episodes before the one in which the task changes.
        changed: episodes after it.
        family: module:name of your own family (default: the study's of the checkpoint's own name).
        json: print the rows as JSON in place of the table.
    """
    torch.set_num_threads(1)
    loaded = load(checkpoint)
    chosen = find_family(family or str(loaded.manifest["family"]))
    run_change_study(loaded, chosen, results, sessions, calm, changed, as_json=json)


@app.command(name="oracle")
def oracle(
    family: FamilyName,
    task: int = 0,
    seed: int = 0,
    runs: Path | None = None,
    results: Path = Path("docs/results/oracle.jsonl"),
) -> None:
    """Train SAC from scratch on one test task, the reference of every normalised gain.

    Args:
        family: cheetah-vel-ood or cheetah-negated (there one oracle covers all tasks, by symmetry).
        task: index of the test task.
        seed: of everything random.
        runs: folder of runs (default $MIER_RUNS, else ./runs).
        results: JSONL file that gets the rows.
    """
    torch.set_num_threads(1)
    chosen = find_family(family)
    if not 0 <= task < len(chosen.test_tasks):
        raise SystemExit(f"task must be 0 to {len(chosen.test_tasks) - 1} for {family}, came {task}")
    train_oracle(chosen, chosen.test_tasks[task], seed, runs or _default_root(), results)


@app.command(name="evaluate")
def evaluate(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    results: Path | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    episodes: int = 10,
    rounds: int = 1,
    tasks: tuple[int, ...] = (),
    arm: Arm = "ours",
    curve_every: int = 0,
    updates: int | None = None,
    family: str | None = None,
    json: bool = False,
) -> None:
    """Run a checkpoint's test tasks as a robot would, and print gains with their intervals.

    Args:
        checkpoint: folder of a checkpoint.
        results: JSONL file of one row an evaluation episode; a (task, seed) already in it is not run again.
        seeds: fine-tune seeds.
        episodes: deterministic evaluation episodes of each arm.
        rounds: rounds of two trajectories, adaptation and fine-tuning.
        tasks: indices of test tasks (default: all).
        arm: ours, or an ablation: own-data relabels the session's own transitions only.
        curve_every: also evaluate every so many updates.
        updates: fine-tune budget (default: the checkpoint's).
        family: module:name of your own family (default: the study's of the checkpoint's own name).
        json: print the rows as JSON in place of the table.
    """
    torch.set_num_threads(1)
    loaded = load(checkpoint)
    run_evaluation(
        loaded,
        find_family(family or str(loaded.manifest["family"])),
        results,
        seeds=seeds,
        episodes=episodes,
        rounds=rounds,
        tasks=tasks,
        arm=arm,
        curve_every=curve_every,
        updates=updates,
        as_json=json,
    )


@app.command(name="study")
def study(
    name: Annotated[str, tyro.conf.Positional],
    evaluations: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    tasks: tuple[int, ...] = (),
    runs: Path | None = None,
    checkpoints: Path = Path("checkpoints"),
    results: Path = Path("docs/results"),
) -> None:
    """Evaluate what a figure needs and its JSONL does not hold yet, from finished runs.

    Args:
        name: of the figure: fig3 or fig4.
        evaluations: some of the figure's evaluations (default: all).
        seeds: some of its seeds (default: all).
        tasks: indices of test tasks (default: all).
        runs: folder of runs (default $MIER_RUNS, else ./runs).
        checkpoints: folder of bundled checkpoints, taken for the runs that they are of.
        results: folder of the JSONL.
    """
    torch.set_num_threads(1)
    known = studies()
    if name not in known:
        raise SystemExit(f"unknown figure '{name}'; expected one of {', '.join(sorted(known))}")
    chosen = known[name]
    if unknown := set(evaluations) - set(chosen.evaluations):
        raise SystemExit(f"{name} has no evaluations {sorted(unknown)}; it has {', '.join(chosen.evaluations)}")
    family = FAMILIES[chosen.family]
    some = [family.test_tasks[i] for i in tasks] if tasks else list(family.test_tasks)
    for seed in seeds or chosen.seeds:
        for evaluation in evaluations or chosen.evaluations:
            try:
                run_study(
                    chosen,
                    chosen.evaluations[evaluation],
                    seed,
                    runs or _default_root(),
                    checkpoints,
                    results / f"{name}.jsonl",
                    some,
                )
            except FileNotFoundError as error:
                raise SystemExit(str(error)) from error


@app.command(name="figures")
def figures(results: Path = Path("docs/results"), page: Path = Path("docs/results.md")) -> None:
    """Draw every figure from its recorded JSONL, and renew the tables of the results page.

    Args:
        results: folder of the JSONL; gets the pictures.
        page: Markdown whose marked tables are renewed.
    """
    for path in draw_figures(results, page):
        Console().print(f"wrote {path}")


def main() -> None:
    """The command line; what it cannot do is told in one line."""
    try:
        app.cli(prog="mier-train")
    except UnknownName as error:
        raise SystemExit(f"mier-train: {error}") from error


if __name__ == "__main__":
    main()
