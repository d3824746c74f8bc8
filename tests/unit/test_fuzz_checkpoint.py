"""The readers of what lies on the disk, under damage and under content that somebody made: a typed error, or something
that can be used; and never more memory than the file is worth.

Hashes are made anew here where content is altered, so that it is the content that is judged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from mier.adaptation import NotFinite
from mier.checkpoint import BUFFER, CHECKPOINT_FILES, MANIFEST, WEIGHTS, Checkpoint, CheckpointError, decode
from mier.config import FineTuneConfig
from mier.finetune import FineTune
from mier.serialization import CorruptedData, pack, same, unpack
from mier.types import EnvSpec, Transitions, Varies
from mier.weights import PolicyWeights
from tests.fuzzing import Tried, fuzz
from tests.unit import hostile

Files = dict[str, bytes]
Make = Callable[..., Transitions]


@pytest.fixture(params=list(Varies))
def files(
    request: pytest.FixtureRequest,
    reward_spec: EnvSpec,
    dynamics_spec: EnvSpec,
    checkpoint_files: Callable[[EnvSpec], Files],
) -> Files:
    return checkpoint_files(reward_spec if request.param is Varies.REWARD else dynamics_spec)


def signed(manifest: Any, weights: bytes, buffer: bytes) -> Files:
    """A checkpoint that is what its hashes say."""
    if isinstance(manifest, dict):
        hashes = {WEIGHTS: hashlib.sha256(weights).hexdigest(), BUFFER: hashlib.sha256(buffer).hexdigest()}
        manifest = {**manifest, "sha256": hashes}
    return {MANIFEST: json.dumps(manifest).encode(), WEIGHTS: weights, BUFFER: buffer}


def read(files: Files) -> Checkpoint | None:
    """The checkpoint, or None if it is refused as it should be: not for want of memory."""
    with hostile.little_memory():
        try:
            return decode(files)
        except CheckpointError as error:
            if "allocate" in str(error):
                raise
            return None


def use(checkpoint: Checkpoint, make: Make) -> None:
    """What is read must serve: it acts, adapts and fine-tunes with finite numbers."""
    agent, spec = checkpoint.agent, checkpoint.spec
    rows = make(spec, 40)
    action = agent.policy(rows.observation, agent.prior_context.expand(40, -1), torch.zeros(40, spec.action_dim))
    assert action.isfinite().all()
    config = replace(agent.configuration.finetune, updates=1, batch_size=8, relabel_transitions=20, model_steps=0)
    with suppress(NotFinite):  # weights that are legal and of no use
        FineTune.start(checkpoint, None, rows, config, seed=0).run(1)
    buffer = checkpoint.relabel_buffer
    assert len(agent.training_contexts[buffer.task]) == len(buffer.task)
    assert buffer.episode_returns(buffer.transitions.reward).isfinite().all()


def test_damaged_files_are_refused(files: Files, tried: Tried) -> None:
    good = decode(files)

    @fuzz(40)
    @given(st.sampled_from(CHECKPOINT_FILES), st.data())
    def run(name: str, data: st.DataObject) -> None:
        tried()
        found = read(files | {name: data.draw(hostile.altered_bytes(files[name]))})
        # What still can be read is the same: blanks of the manifest do not count.
        assert found is None or found.manifest == good.manifest

    run()


def test_a_manifest_with_other_content_is_refused_or_serves(files: Files, transitions: Make, tried: Tried) -> None:
    """Failed on what was so once: values of another type taken, and found out by the first that used them."""
    manifest = json.loads(files[MANIFEST])

    @fuzz(60)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        tried()
        part = data.draw(st.sampled_from(["spec", "configuration", "training_tasks", "name", None]))
        other = data.draw(hostile.altered_tree(manifest if part is None else manifest[part]))
        try:
            altered = signed(other if part is None else {**manifest, part: other}, files[WEIGHTS], files[BUFFER])
        except TypeError:
            return  # a tensor is no JSON
        if found := read(altered):
            use(found, transitions)

    run()


def test_tensors_with_other_content_are_refused_or_serve(files: Files, transitions: Make, tried: Tried) -> None:
    """Failed on what was so once: tensors of other shapes and types taken, and found out by whoever used them."""
    manifest = json.loads(files[MANIFEST])

    @fuzz(60)
    @given(st.sampled_from([WEIGHTS, BUFFER]), st.data())
    def run(name: str, data: st.DataObject) -> None:
        tried()
        other = data.draw(hostile.altered_tree(load(files[name])))
        if not isinstance(other, dict) or not all(isinstance(value, Tensor) for value in other.values()):
            return
        changed = {name: save({key: value.contiguous() for key, value in other.items()})}
        if found := read(signed(manifest, **_by_part(files | changed))):
            use(found, transitions)

    run()


def _by_part(files: Files) -> dict[str, bytes]:
    return {"weights": files[WEIGHTS], "buffer": files[BUFFER]}


def _header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


BOMBS: dict[str, Callable[[Any, Files], Files]] = {
    "deep manifest": lambda m, f: f | {MANIFEST: b"[" * 100_000},
    "deep configuration": lambda m, f: f | {MANIFEST: json.dumps(m).replace('"tiny"', "[" * 50_000, 1).encode()},
    "a number of a million digits": lambda m, f: f | {MANIFEST: b'{"format": ' + b"9" * 1_000_000 + b"}"},
    "many tasks": lambda m, f: signed({**m, "training_tasks": 2**36}, **_by_part(f)),
    "more tasks than numbers": lambda m, f: signed({**m, "training_tasks": 10**30}, **_by_part(f)),
    "wide layers": lambda m, f: signed(_configured(m, "model", hidden=[200_000, 200_000]), **_by_part(f)),
    "wider layers": lambda m, f: signed(_configured(m, "sac", hidden=[2**40, 2**40]), **_by_part(f)),
    "many layers": lambda m, f: signed(_configured(m, "model", hidden=[1] * 300_000), **_by_part(f)),
    "many layers of the policy": lambda m, f: signed(_configured(m, "sac", hidden=[1] * 300_000), **_by_part(f)),
    "a large context": lambda m, f: signed(_configured(m, "model", context_dim=2**34), **_by_part(f)),
    "many inner steps": lambda m, f: signed(_configured(m, "adapt", steps=2**34), **_by_part(f)),
    "a header longer than the file": lambda m, f: signed(m, _header(b"{}", 2**62), f[BUFFER]),
    "a long header": lambda m, f: signed(m, _header(b"{" + b" " * 10_000_000 + b"}"), f[BUFFER]),
    "a deep header": lambda m, f: signed(m, _header(b'{"a":' * 100_000), f[BUFFER]),
    "tensors without bytes": lambda m, f: signed(
        m, _header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'), f[BUFFER]
    ),
    "long episodes": lambda m, f: signed(m, f[WEIGHTS], _lengths(f, 2**31 - 1)),
    "episodes of less than nothing": lambda m, f: signed(m, f[WEIGHTS], _lengths(f, -1)),
}


def _configured(manifest: dict[str, Any], part: str, **changes: Any) -> dict[str, Any]:
    configuration = manifest["configuration"]
    return {**manifest, "configuration": {**configuration, part: {**configuration[part], **changes}}}


def _lengths(files: Files, value: int) -> bytes:
    tensors = load(files[BUFFER])
    return save(tensors | {"length": torch.full_like(tensors["length"], value)})


@pytest.mark.parametrize("name", BOMBS)
def test_little_that_asks_for_much_is_refused(files: Files, name: str) -> None:
    """Failed on what was so once: sizes of the manifest believed before those of the tensors were seen."""
    assert read(BOMBS[name](json.loads(files[MANIFEST]), files)) is None


def unpacked(data: bytes) -> Any:
    """What the bytes hold, or None if they are refused as they should be."""
    with hostile.little_memory():
        try:
            return unpack(data)
        except CorruptedData:
            return None


def test_damaged_states_are_refused(tried: Tried) -> None:
    tree = {"a": torch.arange(6.0).reshape(2, 3), 7: [0.1, None, True, "text"], "n": {"b": torch.ones(2).bool()}}
    data = pack(tree)

    @fuzz(100)
    @given(hostile.altered_bytes(data))
    def run(altered: bytes) -> None:
        tried()
        found = unpacked(altered)
        assert found is None or same(found, tree)

    run()


def test_states_that_somebody_wrote_are_read_or_refused(tried: Tried) -> None:
    nodes = st.recursive(
        st.one_of(hostile.leaves, st.sampled_from([{"__tensor__": "0"}, {"__tensor__": 0}, {"__tensor__": None}])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.builds(
                lambda pairs: {"__items__": pairs}, st.lists(st.lists(inner, min_size=1, max_size=3), max_size=3)
            ),
            st.dictionaries(st.sampled_from(["__items__", "__tensor__", "tree", "sha256", "x"]), inner, max_size=2),
        ),
        max_leaves=8,
    )

    @fuzz(100)
    @given(nodes, hostile.tensors())
    def run(structure: Any, tensor: Tensor) -> None:
        tried()
        unpacked(save({"0": tensor}, {"tree": json.dumps(structure)}))

    run()


@pytest.mark.parametrize("depth", [900, 2_000, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"__items__": [["a", '])
def test_a_deep_state_is_refused(depth: int, opening: str) -> None:
    """Failed on what was so once: RecursionError."""
    closing = "]" if opening == "[" else "]]}"
    for tree in (opening * depth, opening * depth + "1" + closing * depth):
        unpacked(save({"0": torch.ones(1)}, {"tree": tree}))


def test_policy_weights_with_other_content_are_refused_or_serve(reward_checkpoint: Checkpoint, tried: Tried) -> None:
    """Failed on what was so once: a saved tensor read as weights (IndexError)."""
    agent = reward_checkpoint.agent
    tree = unpack(PolicyWeights.of(agent).to_bytes())

    @fuzz(80)
    @given(hostile.altered_tree(tree))
    def run(altered: Any) -> None:
        tried()
        try:
            weights = PolicyWeights.from_bytes(pack(altered))
            policy = weights.load_policy(agent)
        except CorruptedData:
            return
        inputs = torch.zeros(1, 3), torch.from_numpy(weights.context)[None], torch.zeros(1, 2)
        assert policy(*inputs).isfinite().all()

    run()


def test_saves_with_other_content_are_refused_or_go_on(
    dynamics_checkpoint: Checkpoint, transitions: Make, tiny_fine_tune: FineTuneConfig, tried: Tried
) -> None:
    """Failed on what was so once: parts of a save taken unseen, and found out by the next update."""
    rows = transitions(dynamics_checkpoint.spec, 40)
    begun = FineTune.start(dynamics_checkpoint, None, rows, tiny_fine_tune, seed=3)
    begun.run(5)
    tree = unpack(begun.save())

    @fuzz(60)
    @given(hostile.altered_tree(tree))
    def run(altered: Any) -> None:
        tried()
        with hostile.little_memory():
            try:
                resumed = FineTune.resume(dynamics_checkpoint, rows, pack(altered))
            except CorruptedData:
                return
            try:
                resumed.run(1)
            except NotFinite:
                return
            PolicyWeights.from_bytes(resumed.result().to_bytes())

    run()
