"""The named runs, and what a run may not be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mier.config import (
    Configuration,
)
from mier_envs.families import FAMILIES
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.runs import RUNS, PearlRun, Run
from tests.unit.tiny_runs import CLOSED_FORM, CPU, DREAMING, SAC, TINY, TRAINING, episodes_per_task, epochs


def test_the_rate_falls_over_a_run() -> None:
    training = replace(TRAINING, epochs=4, final_rate=0.2)
    assert [training.rate_at(epoch, 1e-3) for epoch in range(4)] == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4])
    assert replace(training, final_rate=1.0).rate_at(3, 3e-4) == 3e-4
    trainer = MetaTrainer.start(replace(TINY["joint"], training=training), 0, CPU)
    epochs(trainer, 3)
    groups = trainer.sac_state.critic_optimizer.param_groups + trainer.sac_state.actor_optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([SAC.learning_rate * 0.6] * 2)


@pytest.mark.parametrize("named", RUNS.values(), ids=RUNS)
def test_named_runs_are_at_the_papers_scale_and_whole(named: Run | PearlRun) -> None:
    training = named.training
    steps = training.tasks_per_epoch * episodes_per_task(training) * 200 * training.epochs
    assert steps == 1_000_000
    assert training.buffer_capacity % 200 == 0
    per_task = steps // len(FAMILIES[named.family].train_tasks(0))
    assert training.buffer_capacity >= per_task  # nothing is overwritten, on average
    if isinstance(named, Run):
        assert Configuration.from_json(named.configuration.to_json()) == named.configuration


def test_dreams_need_contexts_learned_with_the_model() -> None:
    with pytest.raises(ValueError, match="set AdaptConfig"):
        Run("tiny", "a test", "cheetah-vel-ood", CLOSED_FORM, DREAMING)
