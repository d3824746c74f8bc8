"""The PEARL baseline: its encoder by hand, what trains it, and runs that resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mier import sac
from mier.config import SacConfig
from mier.serialization import pack, same, unpack
from mier.types import EnvSpec, Transitions
from mier_envs.families import FAMILIES
from mier_trainer.baselines.pearl import PearlTrainer
from mier_trainer.baselines.pearl_encoder import ContextEncoder, PearlConfig, Posterior, kl_to_prior
from mier_trainer.epoch_random import EpochRandom
from mier_trainer.run_folder import RunFolder
from mier_trainer.runs import RUNS, PearlRun, TrainingConfig

TINY = PearlConfig(context_dim=3, hidden=(16, 16), sac=SacConfig(hidden=(16, 16), reward_scale=5.0))
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
    buffer_capacity=600,
)
CPU = torch.device("cpu")
RUN = PearlRun("tiny-pearl", "a test", "cheetah-negated", TINY, TRAINING)


def ignore(_: int) -> None:
    """Progress is for people."""


def _rows(spec: EnvSpec, n: int) -> Transitions:
    draw = torch.Generator().manual_seed(3)
    wide = (spec.observation_dim, spec.action_dim, None, spec.observation_dim, None)
    return Transitions(*(torch.rand((n, d) if d else (n,), generator=draw) for d in wide))


def _spec(family: str) -> EnvSpec:
    return EnvSpec.from_json(FAMILIES[family].spec_json())


def test_the_posterior_is_the_product_of_its_factors() -> None:
    spec = _spec("cheetah-negated")
    encoder, rows = ContextEncoder(spec, TINY), _rows(spec, 4)
    factors = [encoder(rows.rows(slice(i, i + 1))) for i in range(4)]
    precision = sum(1.0 / f.variance for f in factors)
    mean = sum(f.mean / f.variance for f in factors) / precision
    whole = encoder(rows)
    torch.testing.assert_close(whole.variance, 1.0 / precision)
    torch.testing.assert_close(whole.mean, mean)
    shuffled = encoder(rows.rows(torch.tensor([2, 0, 3, 1])))
    torch.testing.assert_close(shuffled.mean, whole.mean)


@pytest.mark.parametrize(("family", "sees"), [("cheetah-negated", True), ("cheetah-vel-ood", False)])
def test_the_next_state_is_seen_where_dynamics_vary(family: str, sees: bool) -> None:
    spec = _spec(family)
    encoder, rows = ContextEncoder(spec, TINY), _rows(_spec(family), 5)
    moved = encoder(rows._replace(next_observation=rows.next_observation + 1.0))
    assert torch.equal(moved.mean, encoder(rows).mean) is not sees
    assert not torch.equal(encoder(rows._replace(reward=rows.reward + 1.0)).mean, encoder(rows).mean)


def test_the_bottleneck_by_hand() -> None:
    assert kl_to_prior(Posterior(torch.zeros(2, 3), torch.ones(2, 3))).item() == 0.0
    # One entry: (m^2 + v - 1 - ln v) / 2 with m = 2, v = 0.25.
    found = kl_to_prior(Posterior(torch.tensor([[2.0]]), torch.tensor([[0.25]]))).item()
    assert found == pytest.approx(0.5 * (4.0 + 0.25 - 1.0 + 1.38629), abs=1e-4)
    several = Posterior(torch.full((2, 3), 2.0), torch.full((2, 3), 0.25))
    assert kl_to_prior(several).item() == pytest.approx(6 * found, rel=1e-5)


def test_the_critics_loss_trains_the_encoder_and_the_policys_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: with `context.detach()` for the critic the encoder keeps its weights."""
    no_bottleneck = replace(RUN, configuration=replace(TINY, kl_weight=0.0))
    trainer = PearlTrainer.start(no_bottleneck, 0, CPU)
    draw = EpochRandom.of(0, 0)
    trainer._collect(draw)
    before = unpack(pack(trainer.encoder.state_dict()))
    seen: list[bool] = []
    update = sac.update_actor

    def spied(
        state: sac.SacState, rows: Transitions, context: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(context.requires_grad)
        return update(state, rows, context, noise)

    monkeypatch.setattr(sac, "update_actor", spied)
    trainer._update(trainer.experience.before.filled_tasks, draw)
    assert seen == [False]
    after = trainer.encoder.state_dict()
    for name in ("layers.0.weight", "layers.1.weight", "head.weight", "head.bias"):
        assert not same(after[name], before[name]), name


def test_the_encoder_learns_from_the_newest_prior_data_alone() -> None:
    trainer = PearlTrainer.start(RUN, 1, CPU)
    for _ in range(6):
        trainer.epoch(ignore)
    for task in trainer.experience.before.filled_tasks.tolist():
        prior, all_of_it = trainer.experience.before.contents(task), trainer.experience.everything.contents(task)
        assert prior.size == 200
        # An epoch appends its prior episode, then its adapted one.
        assert torch.equal(prior.observation, all_of_it.observation[-400:-200])


def test_a_killed_run_ends_as_if_it_was_never_stopped(tmp_path: Path) -> None:
    whole = PearlTrainer.start(RUN, 5, CPU)
    rows = [whole.epoch(ignore) for _ in range(3)]
    folder = RunFolder.open(tmp_path, RUN.name, 5)
    killed = PearlTrainer.start(RUN, 5, CPU)
    killed.epoch(ignore)
    folder.save(killed.state_dict())
    torch.rand(17)
    killed = PearlTrainer.start(RUN, 5, CPU)
    killed.load_state_dict(folder.load() or {})
    assert [killed.epoch(ignore) for _ in range(2)] == rows[1:]
    assert same(killed.state_dict(), whole.state_dict())


def test_evaluation_only_looks_and_repeats() -> None:
    trainer = PearlTrainer.start(RUN, 5, CPU)
    trainer.epoch(ignore)
    before = unpack(pack(trainer.state_dict()))
    tasks = list(FAMILIES[RUN.family].test_tasks[:2])
    first, again = (trainer.adapted_episodes(tasks, episodes=3, seed=7) for _ in range(2))
    assert first == again
    assert [len(row["context_adapted"]) for row in first] == [3, 3]
    assert same(trainer.state_dict(), before)
    assert trainer.adapted_episodes(tasks, episodes=3, seed=8) != first


@pytest.mark.parametrize("family", ["cheetah-vel-ood", "cheetah-negated"])
def test_pearl_differs_from_ours_in_nothing_that_is_not_pearl(family: str) -> None:
    ours, pearl = RUNS[family], RUNS[f"{family}-pearl"]
    plain = TrainingConfig()
    dreamless = replace(
        ours.training,
        dream_reach=plain.dream_reach,
        dream_share=plain.dream_share,
        dream_best_of=plain.dream_best_of,
        dreamed_episodes=0,
        adapted_episodes=ours.training.adapted_episodes + ours.training.dreamed_episodes,
    )
    assert pearl.training == dreamless
    assert isinstance(pearl, PearlRun)
    frameless = replace(ours.configuration.sac, actuator_frame=False)
    assert pearl.configuration.sac == replace(frameless, reward_scale=5.0)
