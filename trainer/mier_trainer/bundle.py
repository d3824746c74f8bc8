"""A finished run -> a checkpoint folder: manifest, weights, relabel buffer, training curve, model card."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from mier.agent import Agent
from mier.checkpoint import BUFFER, MANIFEST, WEIGHTS, Checkpoint, CheckpointError, decode, encode
from mier.relabel import RelabelBuffer
from mier.types import Transitions
from mier.world import episode_starts
from mier_envs.families import FAMILIES
from mier_trainer.device import bf16_pays
from mier_trainer.evaluate import context_returns
from mier_trainer.fit_dynamics import fit_dynamics
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.model_card import model_card
from mier_trainer.plots import plot_curve
from mier_trainer.run_folder import RunFolder, read_jsonl, write_atomically

CURVE = "curve.jsonl"
_RETURNS_SEED = 20_000
_RETURNS_EPISODES = 10


def bundle(trainer: MetaTrainer, folder: RunFolder, into: Path, episodes: int) -> Path:
    """Write the checkpoint of a run's newest save under `into`; returns its folder."""
    agent = _agent(trainer)
    buffer = select_episodes(trainer, episodes)
    described = json.loads((folder.path / "run.json").read_text())
    provenance: dict[str, Any] = described | {
        "family": trainer.run.family,
        "run": trainer.run.name,
        "environment_steps": trainer.environment_steps,
        "epochs": trainer.epochs_done,
        "sac_updates": trainer.epochs_done
        * trainer.run.training.model_steps
        * trainer.run.training.sac_steps_per_model_step,
        "training_seconds": round(sum(row["seconds"] for row in folder.rows())),
        "returns_protocol": {"trajectories": 2, "episodes": _RETURNS_EPISODES, "seed": _RETURNS_SEED},
    }
    # The card shows what a user of this very checkpoint will see, so its figures come from the checkpoint as encoded.
    draft = decode(encode(agent, buffer, trainer.run.name, provenance | {"returns": {}}))
    provenance["returns"] = _returns(draft, trainer)
    path = into / trainer.run.name
    path.mkdir(parents=True, exist_ok=True)
    for name, data in encode(agent, buffer, trainer.run.name, provenance).items():
        write_atomically(path / name, data)
    rows = [_short(row) for row in folder.rows() if row["epoch"] <= trainer.epochs_done]
    write_atomically(path / CURVE, "".join(json.dumps(row) + "\n" for row in rows).encode())
    plot_curve(rows, trainer.run, path / "curve.png")
    (path / "README.md").write_text(model_card(load(path)))
    return path


def trained_checkpoint(trainer: MetaTrainer, episodes: int) -> Checkpoint:
    """The checkpoint that `bundle` would write, in memory, without what only a reader needs."""
    facts = {"family": trainer.run.family, "seed": trainer.seed, "epochs": trainer.epochs_done}
    return decode(encode(_agent(trainer), select_episodes(trainer, episodes), trainer.run.name, facts))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        CheckpointError: it is missing, truncated or altered.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"expected a checkpoint folder with {MANIFEST}, {WEIGHTS} and {BUFFER}, found none at {path}"
        )
    return decode({file.name: file.read_bytes() for file in path.iterdir() if file.name in (MANIFEST, WEIGHTS, BUFFER)})


def recorded_curve(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path / CURVE)


def select_episodes(trainer: MetaTrainer, episodes: int) -> RelabelBuffer:
    """About `episodes` whole episodes, evenly over tasks: half the latest (good behaviour), half spread over the whole
    run (coverage: what early, wild policies saw is what lies outside the training tasks)."""
    everything = trainer.experience.everything
    filled = [int(t) for t in everything.filled_tasks]
    each = max(2, episodes // len(filled))
    parts, tasks = [], []
    for task in filled:
        rows = everything.contents(task)
        stored = _whole_episodes(rows, cut=rows.size == everything.capacity)
        newest = max(0, len(stored) - each // 2)
        older = min(each - len(stored[newest:]), newest)
        spread = torch.linspace(0, max(newest - 1, 0), older).long().unique().tolist()
        for chosen in [stored[number] for number in spread] + stored[newest:]:
            parts.append(rows.rows(chosen))
            tasks.append(task)
    if not parts:
        raise ValueError("no task holds a whole episode: buffer_capacity must be several times the horizon")
    length = torch.tensor([part.size for part in parts])
    episode = torch.arange(len(parts)).repeat_interleave(length)
    return RelabelBuffer(Transitions.concatenate(parts), episode, torch.tensor(tasks))


def _whole_episodes(rows: Transitions, cut: bool) -> list[slice]:
    """Where the episodes of rows [n, dim] lie: within one, each state is the one before's next.

    Args:
        cut: the ring has been full, so that its oldest episode may lack its start; that one is left out.
    """
    starts = [*episode_starts(rows).tolist(), rows.size]
    return [slice(a, b) for a, b in pairwise(starts)][int(cut) :]


def _agent(trainer: MetaTrainer) -> Agent:
    agent = trainer.agent
    agent.log_alpha = trainer.sac_state.log_alpha.item()
    agent.training_contexts = trainer.training_contexts()
    if agent.dynamics is not None:
        with torch.autocast(
            trainer.device.type, torch.bfloat16, enabled=bf16_pays(trainer.device), cache_enabled=False
        ):
            everything = trainer.experience.everything
            fit_dynamics(agent.dynamics, everything, trainer.run.training.dynamics_steps, trainer.seed)
    return agent


def _returns(checkpoint: Checkpoint, trainer: MetaTrainer) -> dict[str, list[dict[str, Any]]]:
    family = FAMILIES[trainer.run.family]
    # Some of the training tasks are the in-distribution reference of the family's own test tasks.
    tasks = {"test": list(family.test_tasks), "training": trainer.tasks[: min(10, len(trainer.tasks))]}
    return {
        kind: [
            _short(row)
            for row in context_returns(checkpoint, family, chosen, seed=_RETURNS_SEED, episodes=_RETURNS_EPISODES)
        ]
        for kind, chosen in tasks.items()
    }


def _short(value: Any) -> Any:
    """Floats to six significant digits: a log is for reading."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, list) else value
