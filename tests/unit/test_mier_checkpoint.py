"""A checkpoint survives its bytes; what is missing, cut off, altered or foreign is refused by the file's name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from mier.adaptation import nll
from mier.agent import Agent
from mier.checkpoint import BUFFER, CHECKPOINT_FILES, MANIFEST, WEIGHTS, CheckpointError, decode, encode
from mier.config import Configuration
from mier.relabel import RelabelBuffer
from mier.serialization import CorruptedData
from mier.types import EnvSpec, Transitions, Varies

Files = dict[str, bytes]
MakeFiles = Callable[[EnvSpec], Files]


@pytest.fixture(params=list(Varies))
def spec(request: pytest.FixtureRequest, reward_spec: EnvSpec, dynamics_spec: EnvSpec) -> EnvSpec:
    return reward_spec if request.param is Varies.REWARD else dynamics_spec


@pytest.fixture
def files(spec: EnvSpec, checkpoint_files: MakeFiles) -> Files:
    return checkpoint_files(spec)


def test_functions_are_the_same_before_and_after(
    spec: EnvSpec,
    tiny_configuration: Callable[[Varies], Configuration],
    relabel_buffer: Callable[[EnvSpec], RelabelBuffer],
    transitions: Callable[..., Transitions],
) -> None:
    agent = Agent.build(spec, tiny_configuration(spec.varies), training_tasks=3)
    agent.model.observation_norm.fit(torch.randn(50, 3) * 3.0)
    agent.critic.context_norm.mean.fill_(0.7)
    agent.training_contexts, agent.log_alpha = torch.randn(3, 4), 0.1 + 0.2
    with torch.no_grad():
        agent.model.prior_context.normal_()
    again = decode(encode(agent, relabel_buffer(spec), "mine", {})).agent
    rows, context = transitions(spec, 9), torch.randn(4)
    contexts, noise = context.expand(9, -1), torch.randn(9, 2)
    assert torch.equal(nll(again.model, rows, context), nll(agent.model, rows, context))
    assert torch.equal(again.policy(rows.observation, contexts, noise), agent.policy(rows.observation, contexts, noise))
    assert torch.equal(
        again.critic(rows.observation, rows.action, contexts), agent.critic(rows.observation, rows.action, contexts)
    )
    assert torch.equal(again.training_contexts, agent.training_contexts)
    assert torch.equal(again.prior_context, agent.prior_context)
    assert again.log_alpha == torch.tensor(0.1 + 0.2).item()
    assert (again.spec, again.configuration) == (agent.spec, agent.configuration)
    enough = transitions(spec, 30)
    np.testing.assert_array_equal(again.adapt(enough).context, agent.adapt(enough).context)


def test_the_relabel_buffer_survives(spec: EnvSpec, files: Files, relabel_buffer: Callable[..., RelabelBuffer]) -> None:
    before, after = relabel_buffer(spec), decode(files).relabel_buffer
    for name in Transitions._fields:
        assert torch.equal(getattr(after.transitions, name), getattr(before.transitions, name)), name
    assert torch.equal(after.episode, before.episode)
    assert torch.equal(after.task, before.task)
    if spec.varies is Varies.DYNAMICS:
        assert 0 < after.transitions.terminated.sum() < 6  # the fixture has falls and time-outs


def test_a_decoded_checkpoint_is_frozen(files: Files) -> None:
    agent = decode(files).agent
    for module in agent.modules().values():
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
    agent.prior_context.add_(1.0)  # a copy
    assert torch.equal(agent.prior_context, decode(files).agent.prior_context)


def test_encoding_is_deterministic_and_decoding_loses_nothing(files: Files, spec: EnvSpec) -> None:
    checkpoint = decode(files)
    provenance = {"seed": 7, "command": "a test"}
    assert encode(checkpoint.agent, checkpoint.relabel_buffer, checkpoint.name, provenance) == files


def test_the_manifest_names_and_hashes_everything(files: Files, spec: EnvSpec) -> None:
    checkpoint = decode(files)
    manifest = json.loads(files[MANIFEST])
    assert checkpoint.hash == hashlib.sha256(files[MANIFEST]).hexdigest()
    assert manifest["sha256"][WEIGHTS] == hashlib.sha256(files[WEIGHTS]).hexdigest()
    assert manifest["sha256"][BUFFER] == hashlib.sha256(files[BUFFER]).hexdigest()
    assert (manifest["seed"], manifest["command"], manifest["format"]) == (7, "a test", 1)
    assert checkpoint.name == f"tiny-{spec.varies}"
    assert checkpoint.spec == spec


def test_provenance_cannot_replace_what_describes_the_files(
    spec: EnvSpec, files: Files, relabel_buffer: Callable[[EnvSpec], RelabelBuffer]
) -> None:
    agent = decode(files).agent
    clash = encode(agent, relabel_buffer(spec), "right", {"name": "wrong", "format": 9, "sha256": {}})
    assert decode(clash).name == "right"


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_missing_file_is_named(files: Files, name: str) -> None:
    del files[name]
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        decode(files)


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(files: Files, name: str, keep: float) -> None:
    files[name] = files[name][: int(keep * len(files[name]))]
    with pytest.raises(CheckpointError, match=name):
        decode(files)


@pytest.mark.parametrize("name", [WEIGHTS, BUFFER])
@pytest.mark.parametrize("where", [0.0, 0.2, 0.7, 0.9999])
def test_a_flipped_byte_is_named(files: Files, name: str, where: float) -> None:
    altered = bytearray(files[name])
    altered[int(where * len(altered))] ^= 0x10
    files[name] = bytes(altered)
    with pytest.raises(CheckpointError, match=f"{name}: expected sha256 .* truncated or altered; copy"):
        decode(files)


def test_a_manifest_altered_anywhere_is_refused(files: Files) -> None:
    good = files[MANIFEST]
    values = json.loads(good)
    for at in range(0, len(good), 3):
        altered = bytearray(good)
        altered[at] ^= 1 << (at % 7)
        # What still decodes differs by a blank between the same values.
        assert not accepted(files | {MANIFEST: bytes(altered)}) or json.loads(altered) == values, at


def accepted(files: Files) -> bool:
    try:
        decode(files)
    except CheckpointError as error:
        return MANIFEST not in str(error)
    return True


def remade(files: Files, **changes: Any) -> Files:
    """The checkpoint with a manifest that somebody rewrote, without its own hash."""
    manifest = json.loads(files[MANIFEST])
    del manifest["sha256"][MANIFEST]
    manifest = {k: v for k, v in (manifest | changes).items() if v is not None}
    return files | {MANIFEST: json.dumps(manifest).encode()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "manifest.json: expected format 1, came 2"),
        ({"format": None}, "expected format 1, came None"),
        ({"spec": None, "name": None}, r"manifest.json: missing keys \['name', 'spec'\]"),
        ({"sha256": []}, "manifest.json: expected under sha256"),
        ({"sha256": {}}, "manifest.json: expected under sha256"),
        ({"training_tasks": "many"}, "do not fit each other"),
        ({"configuration": {"model": {"context_dim": 9}}}, "do not fit each other"),
        ({"configuration": {"modle": {}}}, "unknown keys"),
        ({"configuration": []}, "do not fit each other"),
        ({"spec": {"id": "x"}}, "do not fit each other"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(files: Files, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        decode(remade(files, **changes))


def test_a_manifest_of_before_it_had_its_own_hash_is_read(files: Files) -> None:
    assert decode(remade(files)).spec == decode(files).spec


@pytest.mark.parametrize("data", [b"[]", b"\xff\xfe", b"null", b"PK\x03\x04"])
def test_a_foreign_manifest_is_refused(files: Files, data: bytes) -> None:
    with pytest.raises(CheckpointError, match=MANIFEST):
        decode(files | {MANIFEST: data})


@pytest.mark.parametrize(
    ("name", "drop"),
    [(WEIGHTS, "log_alpha"), (WEIGHTS, "policy.head.weight"), (BUFFER, "length"), (BUFFER, "final_observation")],
)
def test_tensors_that_do_not_fit_the_manifest_are_refused(files: Files, name: str, drop: str) -> None:
    tensors = load(files[name])
    del tensors[drop]
    other = save(tensors)
    hashes = {n: hashlib.sha256(other if n == name else files[n]).hexdigest() for n in (WEIGHTS, BUFFER)}
    with pytest.raises(CheckpointError, match="do not fit each other"):
        decode(remade(files | {name: other}, sha256=hashes))


def test_an_error_of_a_checkpoint_is_corrupted_data(files: Files) -> None:
    with pytest.raises(CorruptedData):
        decode({})


def test_what_float16_cannot_hold_is_not_written(
    spec: EnvSpec, files: Files, relabel_buffer: Callable[[EnvSpec], RelabelBuffer]
) -> None:
    buffer, agent = relabel_buffer(spec), decode(files).agent
    large = replace(buffer, transitions=buffer.transitions._replace(reward=buffer.transitions.reward * 1e6))
    with pytest.raises(ValueError, match="expected rewards below 65504"):
        encode(agent, large, "large", {})
