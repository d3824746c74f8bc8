"""A run that is killed and goes on ends bit for bit as one that was never stopped; evaluation only looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mier import adaptation, sac
from mier.serialization import pack, same, unpack
from mier.types import Transitions
from mier_envs.families import FAMILIES
from mier_trainer.epoch_random import EpochRandom
from mier_trainer.meta_train import MetaTrainer, adapted_returns
from mier_trainer.rollout import collect
from mier_trainer.run_folder import RunFolder
from mier_trainer.runs import Run
from tests.unit.tiny_runs import CLOSED_FORM, CPU, GATED, TINY, TRAINING, episodes_per_task, epochs


@pytest.fixture(params=TINY)
def run(request: pytest.FixtureRequest) -> Run:
    return TINY[request.param]


def test_a_killed_run_ends_as_if_it_was_never_stopped(run: Run, tmp_path: Path) -> None:
    whole = MetaTrainer.start(run, 5, CPU)
    rows = epochs(whole, 3)
    folder = RunFolder.open(tmp_path, run.name, 5)
    killed = MetaTrainer.start(run, 5, CPU)
    for done in (1, 2):
        assert epochs(killed, 1) == rows[done - 1 : done]
        folder.save(killed.state_dict())
        epochs(killed, 1)  # work that the kill loses
        torch.rand(17)
        killed = MetaTrainer.start(run, 5, CPU)
        killed.load_state_dict(folder.load() or {})
        assert killed.epochs_done == done
    assert epochs(killed, 1) == rows[2:]
    assert pack(killed.state_dict()) == pack(whole.state_dict())


def test_joint_training_moves_the_contexts_of_the_tasks_it_saw() -> None:
    trainer = MetaTrainer.start(TINY["joint"], 5, CPU)
    before = trainer.task_contexts.detach().clone()
    epochs(trainer, 2)
    seen = torch.zeros(len(trainer.tasks), dtype=torch.bool)
    seen[trainer.experience.before.filled_tasks] = True
    moved = (trainer.task_contexts.detach() != before).any(-1)
    assert moved.any()
    assert not moved[~seen].any()
    assert torch.equal(trainer.contexts([3, 4]), trainer.task_contexts.detach()[[3, 4]])
    middle = trainer.task_contexts.detach()[trainer.experience.before.filled_tasks].mean(0)
    torch.testing.assert_close(trainer.agent.prior_context, middle)


def test_dreams_explore_and_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dreamed episodes are kept with the rewards of the task they were lived in; half of each batch is dreamed."""
    seen: list[tuple[Transitions, torch.Tensor]] = []
    update = sac.update

    def spied(state: Any, rows: Transitions, context: torch.Tensor, noise: Any) -> Any:
        seen.append((rows, context))
        return update(state, rows, context, noise)

    monkeypatch.setattr(sac, "update", spied)
    trainer = MetaTrainer.start(TINY["dreams"], 5, CPU)
    (row,) = epochs(trainer, 1)
    assert trainer.environment_steps == 2 * 3 * 200
    assert all(
        trainer.experience.everything.contents(int(t)).size == 600 for t in trainer.experience.everything.filled_tasks
    )
    assert "return_dreamed" in row
    dreamed = round(0.5 * TRAINING.meta_batch_tasks) * TRAINING.evaluation_rows
    for batch, contexts in seen:
        lived = {
            round(float(r), 5)
            for t in trainer.experience.everything.filled_tasks
            for r in trainer.experience.everything.contents(t).reward
        }
        own = [round(float(r), 5) in lived for r in batch.reward]
        assert all(own[dreamed:])
        assert sum(own[:dreamed]) < dreamed / 2
        assert len(contexts[:dreamed].unique(dim=0)) == dreamed // TRAINING.evaluation_rows


def test_joint_training_learns_contexts_that_tell_tasks_apart() -> None:
    training = replace(TRAINING, model_steps=150, sac_steps_per_model_step=1, tasks_per_epoch=4, meta_batch_tasks=4)
    run = replace(TINY["joint"], training=training)
    trainer = MetaTrainer.start(run, 5, CPU)
    rows = epochs(trainer, 3)
    assert rows[-1]["nll"] < rows[0]["nll"]
    # Rows are likelier under their own task's context than under another's.
    tasks = [int(t) for t in trainer.experience.everything.filled_tasks]
    contexts, model = trainer.contexts(tasks), trainer.agent.model
    with torch.no_grad():
        of = [trainer.experience.everything.contents(task) for task in tasks]
        each = np.array([[adaptation.nll(model, rows, z).item() for z in contexts] for rows in of])
    assert np.mean(np.diag(each)) < np.mean(each) - 0.1


def test_another_seed_is_another_run(run: Run) -> None:
    states = []
    for seed in (1, 2):
        trainer = MetaTrainer.start(run, seed, CPU)
        epochs(trainer, 1)
        states.append(pack(trainer.state_dict()))
    assert states[0] != states[1]


def test_an_epoch_trains_everything_that_it_should(run: Run) -> None:
    trainer = MetaTrainer.start(run, 5, CPU)
    before = unpack(pack(trainer.state_dict()))
    metrics = epochs(trainer, 1)[0]
    after = trainer.state_dict()
    still = {CLOSED_FORM: {"prior_context", "inner_log_rate"}, GATED: set()}.get(run.configuration, {"inner_log_rate"})
    for name, value in before["model"].items():
        assert same(after["model"][name], value) is (name in still), name
    for part in ("policy", "critic", "target_critic"):
        for name, value in before["sac"][part].items():
            assert not same(after["sac"][part][name], value), (part, name)
    assert {"nll", "gradient_norm", "critic_loss", "actor_loss", "alpha", "return_prior", "return_adapted"} <= set(
        metrics
    )
    assert all(np.isfinite(list(metrics.values())))
    assert trainer.environment_steps == 2 * episodes_per_task(run.training) * 200


def test_data_before_adaptation_is_kept_apart(run: Run) -> None:
    trainer = MetaTrainer.start(run, 5, CPU)
    epochs(trainer, 1)
    filled = trainer.experience.everything.filled_tasks
    assert len(filled) == 2
    for task in filled.tolist():
        prior, all_of_it = trainer.experience.before.contents(task), trainer.experience.everything.contents(task)
        assert (prior.size, all_of_it.size) == (200, 200 * episodes_per_task(run.training))
        assert same(prior._asdict(), all_of_it.rows(slice(0, 200))._asdict())
        assert not all_of_it.terminated.any()  # running out of time is no termination
        # Whole episodes, the last transition among them: each state is the next one's start, save between episodes.
        joined = (all_of_it.next_observation[:-1] == all_of_it.observation[1:]).all(-1)
        assert joined.logical_not().nonzero().flatten().tolist() == list(range(199, all_of_it.size - 1, 200))
    assert trainer.experience.everything.state_dict()["count"].sum() == trainer.environment_steps


def test_critic_and_target_share_their_normalisers(run: Run) -> None:
    trainer = MetaTrainer.start(run, 5, CPU)
    for _ in range(2):
        epochs(trainer, 1)
        state = trainer.sac_state
        for part in ("observation_norm", "context_norm"):
            norms = [getattr(net, part).state_dict() for net in (state.critic, state.target_critic, state.policy)]
            assert same(dict(norms[0]), dict(norms[1]))
            assert same(dict(norms[0]), dict(norms[2]))


def test_the_context_scale_follows_slowly(run: Run) -> None:
    trainer = MetaTrainer.start(run, 5, CPU)
    epochs(trainer, 1)
    for net in (trainer.agent.policy, trainer.agent.critic, trainer.sac_state.target_critic):
        net.context_norm.mean.fill_(1e4)
    epochs(trainer, 1)
    torch.testing.assert_close(
        trainer.agent.policy.context_norm.mean,
        torch.full((run.configuration.model.context_dim,), 9e3),
        rtol=1e-2,
        atol=0,
    )


def test_the_policy_trains_on_rows_of_a_task_under_its_adapted_context(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[torch.Tensor] = []
    used: list[tuple[Transitions, torch.Tensor]] = []
    outer, update = MetaTrainer._loss, sac.update

    def loss(*arguments: Any) -> Any:
        result = outer(*arguments)
        found.append(result[2])
        return result

    def spied(state: Any, rows: Transitions, context: torch.Tensor, noise: Any) -> Any:
        used.append((rows, context))
        return update(state, rows, context, noise)

    trainer = MetaTrainer.start(run, 5, CPU)
    epochs(trainer, 1)  # so that tasks have contexts that differ
    monkeypatch.setattr(MetaTrainer, "_loss", loss)
    monkeypatch.setattr(sac, "update", spied)
    epochs(trainer, 1)
    stored = {
        t: trainer.experience.everything.contents(t).observation
        for t in trainer.experience.everything.filled_tasks.tolist()
    }
    assert (len(found), len(used)) == (3, 6)
    for i, (rows, context) in enumerate(used):
        own = 16 if run.training.dream_reach else 0  # dreamed ones before
        assert torch.equal(context[own:], found[i // 2].repeat_interleave(8, 0)[own:])
        for block in rows.observation.split(8):
            homes = [t for t, seen in stored.items() if all((seen == row).all(-1).any() for row in block)]
            assert len(homes) == 1
    assert len(torch.cat(found).unique(dim=0)) > 3


def test_input_statistics_stand_still_after_their_epochs(run: Run) -> None:
    trainer = MetaTrainer.start(run, 5, CPU)
    seen = []
    for _ in range(3):
        epochs(trainer, 1)
        seen.append(unpack(pack(dict(trainer.agent.model.observation_norm.state_dict()))))
    assert not same(seen[0], seen[1])
    assert same(seen[1], seen[2])


def test_looking_at_returns_changes_nothing(run: Run) -> None:
    trainer = MetaTrainer.start(run, 5, CPU)
    epochs(trainer, 1)
    before = pack(trainer.state_dict())
    tasks = trainer.tasks[:2]
    rows, again = (
        adapted_returns(trainer.agent, run.family, tasks, prior_episodes=1, episodes=2, seed=3) for _ in range(2)
    )
    assert rows == again
    assert [row["task"] for row in rows] == [task.name for task in tasks]
    assert pack(trainer.state_dict()) == before


def test_randomness_of_an_epoch_is_of_seed_and_epoch() -> None:
    drawn = {
        (seed, epoch): (
            EpochRandom.of(seed, epoch).numpy.random(),
            torch.rand(1, generator=EpochRandom.of(seed, epoch).torch).item(),
        )
        for seed in range(3)
        for epoch in range(3)
    }
    assert len({a for a, _ in drawn.values()}) == len({b for _, b in drawn.values()}) == 9
    assert drawn[1, 2] == (
        EpochRandom.of(1, 2).numpy.random(),
        torch.rand(1, generator=EpochRandom.of(1, 2).torch).item(),
    )


def test_collected_rows_are_what_the_environment_did(run: Run) -> None:
    family, policy = FAMILIES[run.family], MetaTrainer.start(run, 5, CPU).agent.policy
    tasks = [family.test_tasks[0], family.test_tasks[3]]
    contexts = torch.randn(2, run.configuration.model.context_dim)
    episodes = collect(
        family, tasks, policy, contexts, rng=np.random.default_rng(0), generator=torch.Generator().manual_seed(1)
    )
    rows = episodes.transitions
    env = family.batch(tasks)
    np.testing.assert_array_equal(env.reset(np.random.default_rng(0)), rows.observation[:, 0].numpy())
    for step in range(200):
        observation, reward, _ = env.step(rows.action[:, step].numpy())
        np.testing.assert_array_equal(observation, rows.next_observation[:, step].numpy())
        np.testing.assert_array_equal(reward, rows.reward[:, step].numpy())
    quiet = collect(family, tasks, policy, contexts, rng=np.random.default_rng(0), generator=None).transitions
    unit = policy(quiet.observation[:, 0], contexts, torch.zeros(2, 6))
    torch.testing.assert_close(quiet.action[:, 0], unit)
    assert not torch.equal(quiet.action[:, 0], rows.action[:, 0])
    assert episodes.length.tolist() == [200, 200]
    assert episodes.steps == 400
    assert episodes.flat().observation.shape == (400, 17)
    assert torch.equal(episodes.flat().reward[200:], rows.reward[1])
    assert not rows.terminated.any()  # running out of time is no termination
