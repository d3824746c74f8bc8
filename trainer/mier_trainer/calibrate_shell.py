"""Gives a checkpoint folder its gate, and what it should know of its own errors."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from mier.calibration import Calibration
from mier.checkpoint import Checkpoint, decode, encode
from mier_envs.families import Family
from mier_trainer.bundle import load
from mier_trainer.calibrate import gate_thresholds
from mier_trainer.device import bf16_pays
from mier_trainer.fit_gate import fit_gate
from mier_trainer.gate_trials import Trial, gate_trials
from mier_trainer.model_card import model_card
from mier_trainer.ood_trials import OodTrial, fresh_tasks, ood_trials, reference
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import provenance, write_atomically

CALIBRATION = "calibration.jsonl"
"""Every candidate that the thresholds come from; of the folder, not of the checkpoint."""
_MADE = ("format", "name", "spec", "configuration", "training_tasks", "sha256")
"""What `encode` writes into a manifest by itself."""


def calibrate(
    path: Path,
    family: Family,
    *,
    parts: Collection[str],
    tasks: int,
    steps: int,
    seed: int,
    episodes: int,
    inside: int = 200,
) -> Calibration:
    """Rewrite the checkpoint in `path` with what was measured; what it knew and is not measured anew stays.

    Args:
        parts: of "gate" (networks of its own, and their thresholds) and "ood" (the reference of its percentiles).
        tasks: at most so many of the family's calibration tasks, for the gate.
        steps: of regression of each of the gate's networks; a gate that is there already is kept.
        inside: fresh tasks of the training distribution, for the reference.
    """
    checkpoint = load(path)
    found, agent = checkpoint.calibration, checkpoint.agent
    if "ood" in parts:
        found = replace(found, ood=reference(_shown(checkpoint, family, inside, seed)))
    if "gate" in parts:
        if agent.gate_model is None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays(torch.device("cpu")), cache_enabled=False):
                agent = fit_gate(checkpoint, steps, seed)
        gated = Checkpoint(checkpoint.manifest, agent.freeze(), checkpoint.relabel_buffer, checkpoint.hash)
        trials = list(_tried(gated, family, tasks, seed, episodes))
        found = replace(found, gate=gate_thresholds(trials))
        rows = "".join(json.dumps(trial.to_json()) + "\n" for trial in trials)
        write_atomically(path / CALIBRATION, rows.encode())
    facts = {key: value for key, value in checkpoint.manifest.items() if key not in _MADE}
    facts |= {"calibration": found.to_json(), "calibrated": provenance(seed)}
    files = encode(agent, checkpoint.relabel_buffer, checkpoint.name, facts)
    decode(files)  # what cannot be read again must not replace what can
    for name, data in files.items():
        write_atomically(path / name, data)
    (path / "README.md").write_text(model_card(load(path)))
    return found


def _shown(checkpoint: Checkpoint, family: Family, inside: int, seed: int) -> Iterator[OodTrial]:
    drawn = fresh_tasks(family, checkpoint.manifest["seed"] + 1, inside)
    with progress_bar(f"{checkpoint.name} reference", len(drawn), 0) as advance:
        for trial in ood_trials(checkpoint, family, drawn, seed):
            yield trial
            advance(1, trial.task.name)


def _tried(gated: Checkpoint, family: Family, tasks: int, seed: int, episodes: int) -> Iterator[Trial]:
    drawn = (family.calibration_tasks or family.train_tasks(gated.manifest["seed"] + 1))[:tasks]
    with progress_bar(f"{gated.name} calibration", len(drawn), 0) as advance:
        for number, task in enumerate(drawn):
            yield from gate_trials(gated, family, task, seed=seed + number, episodes=episodes, broken=False)
            advance(1, task.name)
