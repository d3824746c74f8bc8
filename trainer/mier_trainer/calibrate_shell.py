"""Gives a checkpoint folder its gate and its calibration."""

from __future__ import annotations

import json
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
from mier_trainer.progress import progress_bar
from mier_trainer.run_folder import provenance, write_atomically

CALIBRATION = "calibration.jsonl"
"""Every candidate that the thresholds come from; of the folder, not of the checkpoint."""
_MADE = ("format", "name", "spec", "configuration", "training_tasks", "sha256")
"""What `encode` writes into a manifest by itself."""


def calibrate(path: Path, family: Family, *, tasks: int, steps: int, seed: int, episodes: int) -> Calibration:
    """Rewrite the checkpoint in `path` with a gate of its own and the thresholds that were measured.

    Args:
        tasks: at most so many of the family's calibration tasks.
        steps: of regression of each of the gate's networks; a gate that is there already is kept.
    """
    checkpoint, agent = load(path), load(path).agent
    if agent.gate_model is None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays(torch.device("cpu")), cache_enabled=False):
            agent = fit_gate(checkpoint, steps, seed)
    gated = Checkpoint(checkpoint.manifest, agent.freeze(), checkpoint.relabel_buffer, checkpoint.hash)
    drawn = (family.calibration_tasks or family.train_tasks(checkpoint.manifest["seed"] + 1))[:tasks]
    trials: list[Trial] = []
    with progress_bar(f"{checkpoint.name} calibration", len(drawn), 0) as advance:
        for number, task in enumerate(drawn):
            trials += gate_trials(gated, family, task, seed=seed + number, episodes=episodes, broken=False)
            advance(1, task.name)
    found = Calibration(gate_thresholds(trials))
    facts = {key: value for key, value in checkpoint.manifest.items() if key not in _MADE}
    facts |= {"calibration": found.to_json(), "calibrated": provenance(seed)}
    files = encode(agent, checkpoint.relabel_buffer, checkpoint.name, facts)
    decode(files)  # what cannot be read again must not replace what can
    for name, data in files.items():
        write_atomically(path / name, data)
    rows = "".join(json.dumps(trial.to_json()) + "\n" for trial in trials)
    write_atomically(path / CALIBRATION, rows.encode())
    (path / "README.md").write_text(model_card(load(path)))
    return found
