"""From a finished run to a checkpoint folder and back: same functions, whole episodes, honest provenance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from mier.adaptation import nll
from mier.checkpoint import BUFFER, CHECKPOINT_FILES, MANIFEST, WEIGHTS, CheckpointError
from mier.config import AdaptConfig, AdaptMethod, Conditioning, Configuration, FineTuneConfig, ModelConfig, SacConfig
from mier_envs.families import FAMILIES
from mier_trainer import bundle as bundling
from mier_trainer.bundle import bundle, load, recorded_curve, select_episodes
from mier_trainer.evaluate import evaluate_task
from mier_trainer.evaluate_shell import run_evaluation
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.run_folder import RunFolder, read_jsonl
from mier_trainer.runs import Run, TrainingConfig
from mier_trainer.train_shell import train

CONFIGURATION = Configuration(
    name="tiny-linear-head",
    model=ModelConfig(
        context_dim=3, hidden=(16, 16), conditioning=Conditioning.LINEAR_HEAD, next_observation_input=True
    ),
    adapt=AdaptConfig(method=AdaptMethod.CLOSED_FORM),
    sac=SacConfig(hidden=(16, 16)),
    finetune=FineTuneConfig(updates=6, critic_only_updates=2, batch_size=16),
)
TRAINING = TrainingConfig(
    epochs=2, tasks_per_epoch=3, prior_episodes=1, adapted_episodes=3, model_steps=2, meta_batch_tasks=2,
    adaptation_rows=8, evaluation_rows=8, buffer_capacity=1200,
)  # fmt: skip
RUN = Run("tiny", "a test", "cheetah-vel-ood", CONFIGURATION, TRAINING)
FAMILY = FAMILIES[RUN.family]


@dataclass(frozen=True)
class Made:
    trainer: MetaTrainer
    folder: RunFolder
    path: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A run of two epochs and its bundle."""
    root = tmp_path_factory.mktemp("bundle")
    trainer = train(RUN, 3, root / "runs", torch.device("cpu"), bf16=False)
    assert isinstance(trainer, MetaTrainer)
    folder = RunFolder.open(root / "runs", RUN.name, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundling, "_RETURNS_EPISODES", 1)
        yield Made(trainer, folder, bundle(trainer, folder, root / "checkpoints", 30))


def test_the_folder_is_complete(made: Made) -> None:
    assert made.path.name == "tiny"
    assert {file.name for file in made.path.iterdir()} == {*CHECKPOINT_FILES, "curve.jsonl", "curve.png", "README.md"}
    assert (made.path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_loaded_is_what_was_trained(made: Made) -> None:
    checkpoint, trainer = load(made.path), made.trainer
    agent = checkpoint.agent
    assert (agent.spec, agent.configuration) == (trainer.agent.spec, CONFIGURATION)
    rows = trainer.experience.everything.contents(int(trainer.experience.everything.filled_tasks[0]))
    contexts, noise = torch.randn(rows.size, 3), torch.randn(rows.size, 6)
    assert torch.equal(
        agent.policy(rows.observation, contexts, noise), trainer.agent.policy(rows.observation, contexts, noise)
    )
    assert torch.equal(
        agent.critic(rows.observation, rows.action, contexts),
        trainer.agent.critic(rows.observation, rows.action, contexts),
    )
    assert torch.equal(nll(agent.model, rows, contexts[0]), nll(trainer.agent.model, rows, contexts[0]))
    assert agent.log_alpha == trainer.sac_state.log_alpha.item()


def test_training_contexts_are_what_the_tasks_adapt_to(made: Made) -> None:
    agent, trainer = load(made.path).agent, made.trainer
    filled = trainer.experience.everything.filled_tasks.tolist()
    assert agent.training_contexts.shape == (100, 3)
    torch.testing.assert_close(agent.training_contexts[filled], trainer.contexts(filled))
    unvisited = [t for t in range(100) if t not in filled]
    assert torch.equal(agent.training_contexts[unvisited], agent.prior_context.expand(len(unvisited), -1))


def test_the_buffer_holds_whole_episodes_of_each_task(made: Made) -> None:
    buffer, trainer = load(made.path).relabel_buffer, made.trainer
    filled = trainer.experience.everything.filled_tasks.tolist()
    assert buffer.task.unique().tolist() == filled
    assert (torch.bincount(buffer.episode) == 200).all()
    assert len(buffer.task) <= 30
    stored = {t: trainer.experience.everything.contents(t) for t in filled}
    for number, task in enumerate(buffer.task.tolist()):
        mine = buffer.transitions.rows(buffer.episode == number)
        starts = [
            i for i in range(0, stored[task].size, 200)
            if torch.equal(stored[task].observation[i].half().float(), mine.observation[0])
        ]  # fmt: skip
        assert len(starts) == 1
        lived = stored[task].rows(slice(starts[0], starts[0] + 200))
        for name in ("observation", "action", "reward", "next_observation", "terminated"):
            assert torch.equal(getattr(mine, name), getattr(lived, name).half().float()), name


def test_episodes_are_the_latest_and_some_of_before(made: Made) -> None:
    trainer = made.trainer
    task = int(trainer.experience.everything.filled_tasks[0])
    stored = trainer.experience.everything.contents(task)
    buffer = select_episodes(trainer, 2 * len(trainer.experience.everything.filled_tasks))
    firsts = [buffer.transitions.observation[buffer.episode == e][0] for e in (buffer.task == task).nonzero().flatten()]
    assert len(firsts) == 2
    assert torch.equal(firsts[-1], stored.observation[-200])  # the newest behaviour
    assert torch.equal(firsts[0], stored.observation[0])  # and the oldest


def test_an_episode_that_a_full_ring_has_cut_is_left_out(made: Made) -> None:
    lived = made.trainer.experience.everything.contents(int(made.trainer.experience.everything.filled_tasks[0]))
    trainer = MetaTrainer.start(replace(RUN, training=replace(TRAINING, buffer_capacity=250)), 3, torch.device("cpu"))
    for start in (0, 200):
        trainer.experience.everything.add(0, lived.rows(slice(start, start + 200)))
    buffer = select_episodes(trainer, 4)
    assert torch.equal(buffer.transitions.observation, lived.observation[200:400])
    assert buffer.task.tolist() == [0]
    small = MetaTrainer.start(replace(RUN, training=replace(TRAINING, buffer_capacity=200)), 3, torch.device("cpu"))
    small.experience.everything.add(0, lived.rows(slice(0, 200)))
    with pytest.raises(ValueError, match="no task holds a whole episode: buffer_capacity must be several times"):
        select_episodes(small, 4)


def test_episodes_of_any_length_are_kept_whole(made: Made) -> None:
    lived = made.trainer.experience.everything.contents(int(made.trainer.experience.everything.filled_tasks[0]))
    trainer = MetaTrainer.start(RUN, 3, torch.device("cpu"))
    lengths = [30, 7, 120]
    for i, length in enumerate(lengths):
        fallen = lived.rows(slice(200 * i, 200 * i + length))
        trainer.experience.everything.add(0, fallen._replace(terminated=torch.eye(length)[-1]))
    buffer = select_episodes(trainer, 10)
    assert torch.bincount(buffer.episode).tolist() == lengths
    assert buffer.transitions.terminated.nonzero().flatten().tolist() == [29, 36, 156]


def test_the_manifest_says_where_it_comes_from(made: Made) -> None:
    manifest = load(made.path).manifest
    assert (manifest["run"], manifest["family"], manifest["seed"]) == ("tiny", "cheetah-vel-ood", 3)
    assert manifest["environment_steps"] == made.trainer.environment_steps == 2 * 3 * 4 * 200
    assert manifest["epochs"] == 2
    assert manifest["sac_updates"] == 2 * 2 * 2
    assert manifest["precision"] == "fp32"
    assert {"torch", "mujoco", "gymnasium", "numpy", "python"} == set(manifest["versions"])
    assert [row["task"] for row in manifest["returns"]["test"]] == [t.name for t in FAMILY.test_tasks]
    assert len(manifest["returns"]["training"]) == 10
    assert manifest["returns_protocol"]["episodes"] == 1


def test_the_card_and_the_curve_are_of_this_checkpoint(made: Made) -> None:
    checkpoint, card = load(made.path), (made.path / "README.md").read_text()
    for said in (checkpoint.hash, checkpoint.manifest["command"], "4,800 environment steps", "2.5 m/s", "## Limits"):
        assert said in card
    rows = recorded_curve(made.path)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["nll"] == pytest.approx(made.folder.rows()[1]["nll"], rel=1e-5)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"expected a checkpoint folder with manifest\.json.*found none at .*nowhere"
    ):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, BUFFER])
def test_a_damaged_folder_is_refused(made: Made, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made.path, copy)
    assert load(copy).hash == load(made.path).hash
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-20])
    with pytest.raises(CheckpointError, match=name):
        load(copy)
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        load(copy)


# The checkpoint, evaluated as a robot would use it.


def test_an_evaluation_is_paired_counted_and_repeats(made: Made) -> None:
    checkpoint, task = load(made.path), FAMILY.test_tasks[2]
    told: list[int] = []

    def rows(seed: int) -> list[dict[str, object]]:
        found = evaluate_task(
            checkpoint, FAMILY, task, CONFIGURATION.finetune, seed=seed, episodes=2, on_update=told.append
        )
        clock = {"adapt_s", "seconds"}
        return [{k: v for k, v in row.items() if k not in clock} for row in found]

    first, again, other = rows(1), rows(1), rows(2)
    assert first == again
    assert [(r["arm"], r["episode"]) for r in first] == [
        (arm, episode) for arm in ("unadapted", "context_adapted", "finetuned") for episode in (0, 1)
    ]
    assert [r["real_steps"] for r in first] == [0, 0, 400, 400, 400, 400]
    assert sum(told) == 3 * CONFIGURATION.finetune.updates
    # Initial states are shared by all seeds and arms, and nothing was learned yet: the unadapted arm is the same.
    assert [r["return"] for r in first[:2]] == [r["return"] for r in other[:2]]
    assert first[0]["return"] != first[1]["return"]
    assert first[4:] != other[4:]


def test_a_shell_evaluates_what_is_not_there_yet(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    results, checkpoint = tmp_path / "out" / "rows.jsonl", load(made.path)

    def evaluate(*seeds: int) -> list[dict[str, object]]:
        run_evaluation(
            checkpoint,
            FAMILY,
            results,
            seeds=seeds,
            episodes=1,
            rounds=1,
            tasks=(1,),
            arm="ours",
            curve_every=0,
            updates=None,
        )
        return read_jsonl(results)

    one = evaluate(0)
    both = evaluate(0, 1)
    assert both[: len(one)] == one
    assert len(both) == 2 * len(one) == 6
    assert evaluate(0, 1) == both
    assert "1 m/s" in capsys.readouterr().out
    found = json.loads(results.with_suffix(".summary.json").read_text())
    assert found["checkpoint_hash"] == checkpoint.hash
    assert found["rows"][0]["seeds"] == 2
