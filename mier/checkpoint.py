"""A checkpoint as values and as bytes: safetensors for tensors, a JSON manifest that names and hashes everything.

    manifest.json                 format, spec, configuration, provenance, sha256 of the other two files
    weights.safetensors           model.*, policy.*, critic.*, perhaps dynamics.*, log_alpha, training_contexts
    relabel_buffer.safetensors    episodes of the training tasks, float16

The checkpoint's identity is the sha256 of the manifest's bytes; since the manifest holds the other hashes, it covers
every byte. Shells do the file I/O. No pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from mier import state_fit
from mier.agent import Agent
from mier.calibration import Calibration
from mier.config import Configuration
from mier.relabel import RelabelBuffer
from mier.serialization import CorruptedData
from mier.types import EnvSpec, Transitions

FORMAT = 1
MANIFEST, WEIGHTS, BUFFER = "manifest.json", "weights.safetensors", "relabel_buffer.safetensors"
CHECKPOINT_FILES = (MANIFEST, WEIGHTS, BUFFER)


class CheckpointError(CorruptedData):
    """A checkpoint that cannot be used: a file is missing, altered or of another format."""


@dataclass(frozen=True)
class Checkpoint:
    """A meta-trained agent with the experience that fine-tuning relabels. Immutable."""

    manifest: dict[str, Any]
    agent: Agent
    relabel_buffer: RelabelBuffer
    hash: str
    """sha256 (hex) of the manifest's bytes"""

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def spec(self) -> EnvSpec:
        return self.agent.spec

    @property
    def calibration(self) -> Calibration:
        """Empty where it was never calibrated."""
        return Calibration.from_json(self.manifest.get("calibration") or {})


def encode(agent: Agent, buffer: RelabelBuffer, name: str, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a checkpoint, by name.

    Args:
        provenance: what the model card shows: command, seed, versions, environment_steps, returns, limits.
    """
    tensors = {
        f"{part}.{key}": value.detach().cpu().contiguous()
        for part, module in agent.modules().items()
        for key, value in module.state_dict().items()
    }
    tensors |= {
        "log_alpha": torch.tensor(agent.log_alpha),
        "training_contexts": agent.training_contexts.cpu().contiguous(),
    }
    files = {WEIGHTS: save(tensors), BUFFER: save(_pack_buffer(buffer))}
    manifest: dict[str, Any] = {
        **provenance,
        "format": FORMAT,
        "name": name,
        "spec": agent.spec.to_json(),
        "configuration": agent.configuration.to_json(),
        "training_tasks": len(agent.training_contexts),
        "sha256": {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
    }
    manifest["sha256"][MANIFEST] = _own_hash(manifest)
    files[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    return files


def decode(files: Mapping[str, bytes]) -> Checkpoint:
    """Inverse of `encode`, every hash verified.

    Raises:
        CheckpointError: says which file is missing, altered, or of an unknown format.
    """
    if missing := [name for name in CHECKPOINT_FILES if name not in files]:
        raise CheckpointError(
            f"a checkpoint needs the files {', '.join(CHECKPOINT_FILES)}; missing: {', '.join(missing)}"
        )
    manifest = _manifest(files[MANIFEST])
    for name in (WEIGHTS, BUFFER):
        expected, came = manifest["sha256"][name], hashlib.sha256(files[name]).hexdigest()
        if came != expected:
            raise CheckpointError(
                f"{name}: expected sha256 {expected}, came {came} ({len(files[name])} bytes): "
                "the file is truncated or altered; copy the checkpoint anew"
            )
    try:
        weights, packed = load(files[WEIGHTS]), load(files[BUFFER])
        spec = EnvSpec.from_json(manifest["spec"])
        agent = _agent(spec, Configuration.from_json(manifest["configuration"]), manifest["training_tasks"], weights)
        buffer = _unpack_buffer(spec, packed, len(agent.training_contexts))
        Calibration.from_json(manifest.get("calibration") or {})
    except (
        safetensors.SafetensorError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError
    ) as error:  # fmt: skip
        raise CheckpointError(f"the manifest and the tensors do not fit each other: {error}") from error
    return Checkpoint(manifest, agent.freeze(), buffer, hashlib.sha256(files[MANIFEST]).hexdigest())


def _agent(spec: EnvSpec, configuration: Configuration, training_tasks: Any, weights: Mapping[str, Tensor]) -> Agent:
    """The agent with these weights. Sizes that the manifest asks for are compared with those of the tensors first, on
    the meta device: a few bytes of it could ask for all memory."""
    if type(training_tasks) is not int:
        raise ValueError(f"training_tasks: expected an integer, came {training_tasks!r:.80}")
    dim = configuration.model.context_dim
    with torch.device("meta"):
        wanted = Agent.build(spec, configuration, 0)
        expected = {
            f"{part}.{name}": value
            for part, module in wanted.modules().items()
            for name, value in module.state_dict().items()
        }
        expected |= {"log_alpha": torch.empty(()), "training_contexts": torch.empty(training_tasks, dim)}
    state_fit.require_state(WEIGHTS, weights, expected)
    if not training_tasks:
        raise ValueError("training_contexts: expected at least one training task, came none")
    agent = Agent.build(spec, configuration, training_tasks)
    for part, module in agent.modules().items():
        module.load_state_dict({k.removeprefix(part + "."): v for k, v in weights.items() if k.startswith(part + ".")})
    agent.log_alpha = weights["log_alpha"].item()
    agent.training_contexts = weights["training_contexts"]
    return agent


def _manifest(data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{MANIFEST}: expected JSON, came {len(data)} bytes that are not ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        came = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise CheckpointError(f"{MANIFEST}: expected format {FORMAT}, came {came}")
    if absent := sorted({"name", "spec", "configuration", "training_tasks", "sha256"} - set(manifest)):
        raise CheckpointError(f"{MANIFEST}: missing keys {absent}")
    hashes = manifest["sha256"]
    if not isinstance(hashes, dict) or not {WEIGHTS, BUFFER} <= set(hashes) <= set(CHECKPOINT_FILES):
        raise CheckpointError(f"{MANIFEST}: expected under sha256 the hash of each file by name, came {hashes!r}")
    # Checkpoints made before manifests had one carry no hash of their own.
    if (own := hashes.get(MANIFEST)) is not None and own != _own_hash(manifest):
        raise CheckpointError(f"{MANIFEST}: its contents do not have its own sha256: altered; copy the checkpoint anew")
    return manifest


def _own_hash(manifest: Mapping[str, Any]) -> str:
    """sha256 (hex) of the manifest without the entry that holds it; of values, so blanks do not count."""
    hashes = {file: value for file, value in manifest["sha256"].items() if file != MANIFEST}
    return hashlib.sha256(json.dumps({**manifest, "sha256": hashes}, sort_keys=True).encode()).hexdigest()


def _pack_buffer(buffer: RelabelBuffer) -> dict[str, Tensor]:
    """Episodes share their states: next_observation is stored only where an episode ends.

    float16 halves the file; states are inputs of networks that normalise them, which 3 digits serve.
    """
    t, last = buffer.transitions, _last_rows(buffer.episode)
    return {
        "observation": _half("observations", t.observation),
        "final_observation": _half("observations", t.next_observation[last]),
        "action": _half("actions", t.action),
        "reward": _half("rewards", t.reward),
        "terminated": t.terminated[last].to(torch.uint8),
        "length": torch.bincount(buffer.episode, minlength=len(buffer.task)).int(),
        "task": buffer.task.int(),
    }


def _half(what: str, value: Tensor) -> Tensor:
    half = value.half()
    if not half.isfinite().all():
        raise ValueError(f"the relabel buffer keeps float16: expected {what} below 65504 in size, came larger ones")
    return half


def _unpack_buffer(spec: EnvSpec, packed: Mapping[str, Tensor], tasks: int) -> RelabelBuffer:
    episodes = len(packed["length"]) if packed["length"].ndim else 0
    rows = len(packed["observation"]) if packed["observation"].ndim else 0
    expected = {
        "observation": torch.empty(rows, spec.observation_dim, dtype=torch.half, device="meta"),
        "final_observation": torch.empty(episodes, spec.observation_dim, dtype=torch.half, device="meta"),
        "action": torch.empty(rows, spec.action_dim, dtype=torch.half, device="meta"),
        "reward": torch.empty(rows, dtype=torch.half, device="meta"),
        "terminated": torch.empty(episodes, dtype=torch.uint8, device="meta"),
        "length": torch.empty(episodes, dtype=torch.int, device="meta"),
        "task": torch.empty(episodes, dtype=torch.int, device="meta"),
    }
    state_fit.require_state(BUFFER, packed, expected)
    length, task = packed["length"].long(), packed["task"].long()
    # Before episodes are laid out: lengths that somebody wrote could ask for all memory.
    if episodes == 0 or not (length > 0).all() or int(length.sum()) != rows:
        raise ValueError(f"{BUFFER}: expected episodes of at least one step, {rows} in all, came others")
    if not ((task >= 0) & (task < tasks)).all() or not (packed["terminated"] <= 1).all():
        raise ValueError(f"{BUFFER}: expected episodes of {tasks} training tasks that fell or did not, came others")
    episode = torch.repeat_interleave(torch.arange(episodes), length)
    last = _last_rows(episode)
    observation = packed["observation"].float()
    following = torch.cat([observation[1:], observation[:1]])
    following[last] = packed["final_observation"].float()
    terminated = torch.zeros(rows)
    terminated[last] = packed["terminated"].float()
    transitions = Transitions(observation, packed["action"].float(), packed["reward"].float(), following, terminated)
    return RelabelBuffer(transitions, episode, task)


def _last_rows(episode: Tensor) -> Tensor:
    """Row at which each episode ends."""
    return torch.cat([(episode[1:] != episode[:-1]).nonzero().squeeze(-1), torch.tensor([len(episode) - 1])])
