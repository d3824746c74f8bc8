"""Training runs so small that tests can finish them, one of each form."""

from __future__ import annotations

from dataclasses import replace

import torch

from mier.config import (
    AdaptConfig,
    AdaptMethod,
    Conditioning,
    Configuration,
    FineTuneConfig,
    ModelConfig,
    SacConfig,
)
from mier_trainer.meta_train import MetaTrainer
from mier_trainer.runs import Run, TrainingConfig

TRAINING = TrainingConfig(
    epochs=3,
    tasks_per_epoch=2,
    prior_episodes=1,
    adapted_episodes=1,
    model_steps=3,
    sac_steps_per_model_step=2,
    meta_batch_tasks=3,
    adaptation_rows=12,
    evaluation_rows=8,
    normalizer_epochs=2,
    evaluate_every_epochs=100,
    save_every_epochs=1,
    buffer_capacity=600,
)
SAC = SacConfig(hidden=(16, 16))
CLOSED_FORM = Configuration(
    name="tiny-linear-head",
    model=ModelConfig(
        context_dim=3,
        hidden=(16, 16),
        conditioning=Conditioning.LINEAR_HEAD,
        next_observation_input=True,
        trained_prior=False,
    ),
    adapt=AdaptConfig(method=AdaptMethod.CLOSED_FORM, context_penalty=0.0),
    sac=SAC,
    finetune=FineTuneConfig(),
)
GATED = Configuration(
    name="tiny-film-gate",
    model=ModelConfig(context_dim=8, hidden=(16, 16), conditioning=Conditioning.FILM, action_gate=True),
    adapt=AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, gauss_newton_steps=3, learned_rate=True),
    sac=SAC,
)
JOINT = Configuration(
    name="tiny-joint",
    model=ModelConfig(context_dim=3, hidden=(16, 16), next_observation_input=True, trained_prior=False),
    adapt=AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, gauss_newton_steps=3, starts=3, joint=True),
    sac=SAC,
)
FRAME = Configuration(
    name="tiny-frame",
    model=ModelConfig(context_dim=6, hidden=(16, 16), action_gate=True, trained_prior=False),
    adapt=AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, gauss_newton_steps=3, starts=3, joint=True),
    sac=replace(SAC, actuator_frame=True),
)
DREAMING = replace(TRAINING, dreamed_episodes=1, dream_reach=6.0, dream_best_of=2)
TINY = {
    "dreams": Run("tiny", "a test", "cheetah-vel-ood", JOINT, DREAMING),
    "frame": Run("tiny", "a test", "cheetah-negated", FRAME, TRAINING),
    "joint": Run("tiny", "a test", "cheetah-vel-ood", JOINT, TRAINING),
    "closed-form": Run("tiny", "a test", "cheetah-vel-ood", CLOSED_FORM, TRAINING),
    "film-gate": Run("tiny", "a test", "cheetah-negated", GATED, TRAINING),
}
CPU = torch.device("cpu")


def ignore(_: int) -> None:
    """Progress is for people."""


def episodes_per_task(training: TrainingConfig) -> int:
    """Per task and epoch."""
    return training.prior_episodes + training.adapted_episodes + training.dreamed_episodes


def epochs(trainer: MetaTrainer, n: int) -> list[dict[str, float]]:
    return [trainer.epoch(ignore) for _ in range(n)]
