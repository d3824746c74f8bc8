"""Fine-tuning: the same weights however it is stopped, the checkpoint untouched, wrong saves refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mier.adaptation import InsufficientData, NotFinite
from mier.checkpoint import Checkpoint
from mier.config import FineTuneConfig
from mier.finetune import FineTune
from mier.relabel import RelabelBuffer, relabel_rewards
from mier.serialization import CorruptedData, pack, same, unpack
from mier.types import EnvSpec, Transitions, Varies
from mier.warm_start import warm_start_context
from mier.weights import PolicyWeights

Make = Callable[..., Transitions]
Ready = tuple[Checkpoint, Transitions]


def poisoned(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with stored experience that would turn every loss into NaN."""
    buffer = checkpoint.relabel_buffer
    nan = Transitions(*(torch.full_like(f, torch.nan) for f in buffer.transitions))
    return replace(checkpoint, relabel_buffer=RelabelBuffer(nan, buffer.episode, buffer.task))


def limited(checkpoint: Checkpoint, threshold: float) -> Checkpoint:
    """The checkpoint with another out-of-distribution threshold."""
    agent = checkpoint.agent
    adapt = replace(agent.configuration.adapt, ood_threshold=threshold)
    return replace(checkpoint, agent=replace(agent, configuration=replace(agent.configuration, adapt=adapt)))


# 0 is before the first relabelling, 3 within the critic-only phase, 4 at its end, 5 and 10 relabel points,
# 7 and 11 between them, 12 the end.
@pytest.mark.parametrize("judge_steps", [0, 6])
@pytest.mark.parametrize("stops", [[0], [3], [4], [5], [7], [10], [11], [12], [1, 3, 5, 6, 10]])
def test_a_stopped_fine_tune_ends_with_the_same_weights(
    ready: Ready, tiny_fine_tune: FineTuneConfig, stops: list[int], judge_steps: int
) -> None:
    checkpoint, rows = ready
    share = 0.5 if judge_steps else 0.0
    config = replace(tiny_fine_tune, judge_steps=judge_steps, judge_every_updates=4, imagined_share=share)
    whole = FineTune.start(checkpoint, None, rows, config, seed=11)
    final = whole.run(100)
    stopped = FineTune.start(checkpoint, None, rows, config, seed=11)
    for stop in stops:
        stopped.run(stop - stopped.updates_done)
        assert stopped.updates_done == stop
        stopped = FineTune.resume(checkpoint, rows, stopped.save())
    assert stopped.run(100) == final
    assert stopped.done
    assert stopped.save() == whole.save()
    assert stopped.result().to_bytes() == whole.result().to_bytes()


def test_another_seed_ends_elsewhere(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    ends = [FineTune.start(checkpoint, None, rows, tiny_fine_tune, seed=seed) for seed in (1, 2)]
    for tuned in ends:
        tuned.run(100)
    assert ends[0].result().to_bytes() != ends[1].result().to_bytes()


def test_the_checkpoint_is_not_written_to(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    agent = checkpoint.agent
    held = {name: dict(module.state_dict()) for name, module in agent.modules().items()}
    held["rest"] = {"contexts": agent.training_contexts, "buffer": checkpoint.relabel_buffer.transitions}
    before = copy.deepcopy(held)
    tuned = FineTune.start(checkpoint, None, rows, tiny_fine_tune, seed=1)
    tuned.run(100)
    FineTune.resume(checkpoint, rows, tuned.save())
    tuned.result().context[:] = 99.0  # nor through what is handed out
    assert same(held, before)
    assert not any(p.requires_grad for module in agent.modules().values() for p in module.parameters())


def test_critics_first_then_policy_and_temperature(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    tuned = FineTune.start(checkpoint, None, rows, tiny_fine_tune, seed=1)
    start = tuned.result()
    assert tuned.run(3).actor_loss == 0.0
    alone = tuned.result()
    assert same(alone.part("policy"), start.part("policy"))
    assert same(alone.state["log_alpha"], start.state["log_alpha"])
    assert not same(alone.part("critic"), start.part("critic"))
    metrics = tuned.run(1)
    both = tuned.result()
    assert metrics.actor_loss != 0.0
    assert not same(both.part("policy"), start.part("policy"))
    assert metrics.alpha == pytest.approx(both.state["log_alpha"].exp().item())
    assert metrics.alpha != pytest.approx(np.exp(-1.25), abs=1e-6)


def test_a_small_budget_trains_the_policy_too(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    config = replace(tiny_fine_tune, updates=8, critic_only_updates=1000)
    tuned = FineTune.start(checkpoint, None, rows, config, seed=1)
    start = tuned.result()
    tuned.run(2)
    assert same(tuned.result().part("policy"), start.part("policy"))
    tuned.run(1)
    assert not same(tuned.result().part("policy"), start.part("policy"))


def test_the_critics_target_is_faster_while_they_learn_alone(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    config = replace(tiny_fine_tune, critic_only_updates=1, critic_only_target_rate=0.5)
    tuned = FineTune.start(checkpoint, None, rows, config, seed=1)
    for rate in (0.5, checkpoint.agent.configuration.sac.target_rate):
        before = [p.clone() for p in tuned.sac.target_critic.parameters()]
        tuned.run(1)
        for now, old, new in zip(
            tuned.sac.target_critic.parameters(), before, tuned.sac.critic.parameters(), strict=True
        ):
            torch.testing.assert_close(now, old + rate * (new.detach() - old))


def test_the_newest_synthetic_transitions_are_kept(dynamics_checkpoint: Checkpoint, transitions: Make) -> None:
    rows = transitions(dynamics_checkpoint.spec, 40, 3)
    config = FineTuneConfig(updates=6, relabel_every_updates=2, relabel_transitions=40, relabel_capacity=50)
    tuned = FineTune.start(dynamics_checkpoint, None, rows, config, seed=1)
    pools = []
    for _ in range(3):
        tuned.run(2)
        pools.append(Transitions(**unpack(tuned.save())["pool"]))
    assert [pool.size for pool in pools] == [40, 50, 50]
    for older, newer in pairwise(pools):
        assert torch.equal(newer.observation[:10], older.observation[-10:])
        assert not torch.equal(newer.observation[10:], older.observation[-40:])


def test_own_starts_are_the_sessions_states(dynamics_checkpoint: Checkpoint, transitions: Make) -> None:
    rows = transitions(dynamics_checkpoint.spec, 40, 3)
    for share in (0.0, 0.25, 1.0):
        config = FineTuneConfig(updates=1, relabel_transitions=40, own_starts=share)
        tuned = FineTune.start(dynamics_checkpoint, None, rows, config, seed=1)
        tuned.run(1)
        states = Transitions(**unpack(tuned.save())["pool"]).observation
        own = (states[:, None] == rows.observation[None]).all(-1).any(-1)
        assert own.sum() == share * 40


def test_the_learning_rate_is_the_fine_tunes_own(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    tuned = FineTune.start(checkpoint, None, rows, replace(tiny_fine_tune, learning_rate=0.0123), seed=1)
    for optimizer in (tuned.sac.actor_optimizer, tuned.sac.critic_optimizer, tuned.sac.alpha_optimizer):
        assert optimizer.param_groups[0]["lr"] == 0.0123


def test_the_learning_rate_falls_to_its_final_share(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    config = replace(tiny_fine_tune, learning_rate=0.01, final_rate=0.4)
    tuned = FineTune.start(checkpoint, None, rows, config, seed=1)
    for update in range(12):
        tuned.run(1)
        rate = 0.01 * (1.0 - 0.6 * update / 12)
        for optimizer in (tuned.sac.actor_optimizer, tuned.sac.critic_optimizer, tuned.sac.alpha_optimizer):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_out_of_reach_the_learning_rate_is_bolder_also_after_a_stop(
    ready: Ready, tiny_fine_tune: FineTuneConfig
) -> None:
    checkpoint, rows = ready
    config = replace(tiny_fine_tune, learning_rate=0.01, bold_factor=3.0)
    for threshold, rate in ((1e-6, 0.03), (1e6, 0.01)):
        tuned = FineTune.start(limited(checkpoint, threshold), None, rows, config, seed=1)
        tuned.run(1)
        tuned = FineTune.resume(checkpoint, rows, tuned.save())
        tuned.run(1)
        assert tuned.sac.actor_optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_the_best_share_is_that_of_the_highest_relabelled_rewards(
    reward_checkpoint: Checkpoint, transitions: Make, tiny_fine_tune: FineTuneConfig
) -> None:
    rows = transitions(reward_checkpoint.spec, 40)
    means = []
    for share in (1.0, 0.25, 0.01):
        tuned = FineTune.start(reward_checkpoint, None, rows, replace(tiny_fine_tune, best_share=share), seed=1)
        found = tuned.run(1).relabelled_reward_mean
        stored = reward_checkpoint.relabel_buffer.transitions
        relabelled = relabel_rewards(tuned.model, tuned.model_context, stored).reward.sort(descending=True).values
        assert found == pytest.approx(relabelled[: round(share * 100)].mean().item(), rel=1e-5)
        means.append(found)
    assert means == sorted(means)


def test_real_rows_have_their_share_of_each_batch(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    weights = PolicyWeights.of(checkpoint.agent)
    ends = {}
    for fraction in (0.0, 0.25, 1.0):
        config = replace(tiny_fine_tune, real_fraction=fraction, model_steps=0)
        tuned = FineTune.start(poisoned(checkpoint) if fraction == 1.0 else checkpoint, weights, rows, config, seed=1)
        tuned.run(100)  # on real rows alone, what is stored does not matter
        ends[fraction] = tuned.result().to_bytes()
    assert len(set(ends.values())) == 3


def test_it_starts_from_the_given_weights_and_their_context(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    own = PolicyWeights.of(checkpoint.agent, np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    moved = {name: value + 0.01 for name, value in own.state.items()}
    tuned = FineTune.start(checkpoint, PolicyWeights(moved, own.context), rows, tiny_fine_tune, seed=1)
    assert same(tuned.result().state, moved)
    np.testing.assert_array_equal(tuned.result().context, own.context)
    assert same(dict(tuned.sac.target_critic.state_dict()), tuned.result().part("critic"))


def test_without_a_warm_start_the_policy_keeps_the_adapted_context(
    ready: Ready, tiny_fine_tune: FineTuneConfig
) -> None:
    checkpoint, rows = ready
    tuned = FineTune.start(checkpoint, None, rows, replace(tiny_fine_tune, warm_start=False), seed=1)
    np.testing.assert_array_equal(tuned.result().context, checkpoint.agent.adapt(rows).context)


@pytest.mark.parametrize("threshold", [1e-6, 1e6])
def test_a_warm_start_is_for_contexts_out_of_reach(
    ready: Ready, tiny_fine_tune: FineTuneConfig, threshold: float
) -> None:
    checkpoint, rows = ready
    checkpoint = limited(checkpoint, threshold)
    agent = checkpoint.agent
    tuned = FineTune.start(checkpoint, None, rows, replace(tiny_fine_tune, model_steps=0), seed=1)
    own = adapted = torch.from_numpy(agent.adapt(rows).context)
    if threshold < 1.0:
        own = warm_start_context(checkpoint, agent.model, adapted, rows)
    torch.testing.assert_close(torch.from_numpy(tuned.result().context), own)


def test_it_never_runs_past_its_end(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    tuned = FineTune.start(checkpoint, None, rows, tiny_fine_tune, seed=1)
    assert [tuned.run(5).updates_done for _ in range(4)] == [5, 10, 12, 12]
    assert tuned.done
    end = tuned.save()
    tuned.run(3)
    assert tuned.save() == end


def test_the_ablation_uses_the_sessions_own_data_alone(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    own = replace(tiny_fine_tune, cross_task=False, warm_start=False)
    ends = [FineTune.start(each, None, rows, own, seed=1) for each in (checkpoint, poisoned(checkpoint))]
    for tuned in ends:
        tuned.run(100)
    assert ends[0].result().to_bytes() == ends[1].result().to_bytes()
    across = FineTune.start(checkpoint, None, rows, replace(own, cross_task=True), seed=1)
    across.run(100)
    assert across.result().to_bytes() != ends[0].result().to_bytes()


def test_dynamics_are_relabelled_on_schedule_rewards_once(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    tuned = FineTune.start(checkpoint, None, rows, tiny_fine_tune, seed=1)
    means = [tuned.run(1).relabelled_reward_mean for _ in range(12)]
    renewed = [i for i in range(1, 12) if means[i] != means[i - 1]]
    assert renewed == ([5, 10] if checkpoint.spec.varies is Varies.DYNAMICS else [])


def test_dynamics_are_relabelled_by_the_policy_in_training(
    dynamics_checkpoint: Checkpoint, transitions: Make, tiny_fine_tune: FineTuneConfig
) -> None:
    rows, own = transitions(dynamics_checkpoint.spec, 40), PolicyWeights.of(dynamics_checkpoint.agent)
    other = PolicyWeights(own.state | {"policy.head.bias": own.state["policy.head.bias"] + 3.0}, own.context)
    means = [
        FineTune.start(dynamics_checkpoint, weights, rows, tiny_fine_tune, seed=1).run(1).relabelled_reward_mean
        for weights in (own, own, other)
    ]
    assert means[0] == means[1] != means[2]


def test_metrics_tell_the_relabelled_reward(
    reward_checkpoint: Checkpoint, transitions: Make, tiny_fine_tune: FineTuneConfig
) -> None:
    rows = transitions(reward_checkpoint.spec, 40)
    tuned = FineTune.start(reward_checkpoint, None, rows, tiny_fine_tune, seed=1)
    expected = relabel_rewards(tuned.model, tuned.model_context, reward_checkpoint.relabel_buffer.transitions)
    assert tuned.run(1).relabelled_reward_mean == pytest.approx(expected.reward.mean().item())


# What is refused.


def test_too_little_data_is_refused(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    with pytest.raises(InsufficientData):
        FineTune.start(checkpoint, None, rows.rows(slice(0, 19)), tiny_fine_tune, seed=1)


def test_transitions_without_a_finite_context_are_refused(
    reward_checkpoint: Checkpoint, transitions: Make, tiny_fine_tune: FineTuneConfig
) -> None:
    rows = transitions(reward_checkpoint.spec, 40)
    broken = rows._replace(reward=rows.reward.clone().fill_(torch.inf))
    with pytest.raises(NotFinite, match="check their units and order"):
        FineTune.start(reward_checkpoint, None, broken, tiny_fine_tune, seed=1)


def test_learning_that_diverges_says_so(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    tuned = FineTune.start(
        poisoned(checkpoint), PolicyWeights.of(checkpoint.agent), rows, replace(tiny_fine_tune, model_steps=0), seed=1
    )
    with pytest.raises(NotFinite, match="diverged within 2 updates"):
        tuned.run(2)


def test_resume_refuses_other_transitions(ready: Ready, transitions: Make, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    save = FineTune.start(checkpoint, None, rows, tiny_fine_tune, seed=1).save()
    almost = rows._replace(reward=rows.reward.index_fill(0, torch.tensor([7]), 0.0))
    for other in (rows.rows(slice(0, 39)), almost, transitions(checkpoint.spec, 40, 4)):
        with pytest.raises(CorruptedData, match="expected the transitions that the save was made over"):
            FineTune.resume(checkpoint, other, save)


def test_resume_refuses_another_checkpoint(
    ready: Ready, tiny_fine_tune: FineTuneConfig, checkpoint_files: Callable[[EnvSpec], dict[str, bytes]]
) -> None:
    checkpoint, rows = ready
    save = FineTune.start(checkpoint, None, rows, tiny_fine_tune, seed=1).save()
    with pytest.raises(CorruptedData, match="expected the checkpoint that the save was made over"):
        FineTune.resume(replace(checkpoint, hash="0" * 64), rows, save)


def test_resume_refuses_damage_and_other_states(ready: Ready, tiny_fine_tune: FineTuneConfig) -> None:
    checkpoint, rows = ready
    tuned = FineTune.start(checkpoint, None, rows, tiny_fine_tune, seed=1)
    save = tuned.save()
    middle = bytearray(save)
    middle[len(save) // 2] ^= 1
    without = {k: v for k, v in unpack(save).items() if k != "sac"}
    odd = unpack(save) | {"config": tuned.config.to_json() | {"speed": 3}}
    smaller = unpack(save) | {"model": {}}
    for data in (
        b"", save[:-1], bytes(middle), tuned.result().to_bytes(), pack([]), pack(without), pack(odd), pack(smaller),
    ):  # fmt: skip
        with pytest.raises(CorruptedData):
            FineTune.resume(checkpoint, rows, data)
