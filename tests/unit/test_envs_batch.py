"""Families of one's own: specs read off the environment, one environment at a time, episodes that end in a fall."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from mier.config import SacConfig
from mier.networks import Policy
from mier.types import EnvSpec
from mier_envs.batch import EnvironmentBatch
from mier_envs.families import FAMILIES, Family, Task, register
from mier_trainer.rollout import collect

POLE = Family(
    "pole",
    "InvertedPendulum-v5",
    "dynamics",
    lambda seed: [Task("soft", {"reset_noise_scale": 0.01}), Task("hard", {"reset_noise_scale": 0.15})],
    (Task("calm", {"reset_noise_scale": 0.0}),),
    healthy_ranges=((1, -0.2, 0.2),),
)
PENDULUM = Family(
    "pendulum",
    "Pendulum-v1",
    "dynamics",
    lambda seed: [Task(f"gravity {g:g}", {"g": g}) for g in (8.0, 9.0)],
    (Task("gravity 5", {"g": 5.0}),),
    observation_names=("cosine", "sine", "speed"),
    action_names=("torque",),
)


def test_a_spec_is_read_off_the_environment() -> None:
    spec = EnvSpec.from_json(PENDULUM.spec_json())
    assert (spec.observation_names, spec.action_names) == (("cosine", "sine", "speed"), ("torque",))
    assert (spec.action_low, spec.action_high) == ((-2.0,), (2.0,))
    assert (spec.dt_s, spec.horizon_steps) == (0.05, 200)
    pole = EnvSpec.from_json(POLE.spec_json())
    assert pole.observation_names == tuple(f"observation_{i}" for i in range(4))
    assert pole.dt_s == pytest.approx(0.04)
    assert [(r.index, r.low, r.high) for r in pole.healthy_ranges] == [(1, -0.2, 0.2)]


@pytest.mark.parametrize(
    ("environment", "why"),
    [("CartPole-v1", "expected Box spaces"), ("CarRacing-v3", "expected Box spaces|expected flat spaces")],
)
def test_environments_that_do_not_fit_are_refused(environment: str, why: str) -> None:
    odd = replace(PENDULUM, environment_id=environment, test_tasks=(Task("any", {}),))
    with pytest.raises((ValueError, gymnasium.error.DependencyNotInstalled), match=why + "|Box2D"):
        odd.spec_json()


def test_a_batch_is_its_environments() -> None:
    tasks = PENDULUM.train_tasks(0)
    batch = PENDULUM.batch(tasks)
    assert isinstance(batch, EnvironmentBatch)
    first = batch.reset(np.random.default_rng(4))
    seeds = np.random.default_rng(4).integers(2**31, size=2)
    for row, (task, seed) in enumerate(zip(tasks, seeds, strict=True)):
        env = PENDULUM.make(task)
        np.testing.assert_array_equal(env.reset(seed=int(seed))[0], first[row])
        env.close()
    actions = np.random.default_rng(5).uniform(-2.0, 2.0, (20, 2, 1)).astype(np.float32)
    seen = [batch.step(action) for action in actions]
    alone = PENDULUM.make(tasks[1])
    alone.reset(seed=int(seeds[1]))
    for action, (observation, reward, fallen) in zip(actions, seen, strict=True):
        expected, earned, *_ = alone.step(action[1])
        np.testing.assert_array_equal(observation[1], expected)
        assert reward[1] == np.float32(float(earned))
        assert not fallen.any()
    alone.close()


def test_an_episode_ends_where_it_falls() -> None:
    """Broken on purpose: with `terminated` cumulative, every padded row was a fall of its own."""
    torch.manual_seed(0)
    spec = EnvSpec.from_json(POLE.spec_json())
    policy = Policy(spec, 2, SacConfig(hidden=(8,)))
    tasks = POLE.train_tasks(0) * 3
    episodes = collect(
        POLE,
        tasks,
        policy,
        torch.zeros(6, 2),
        rng=np.random.default_rng(0),
        generator=torch.Generator().manual_seed(1),
    )
    assert episodes.length.unique().numel() > 1
    assert episodes.length.max() < POLE.horizon_steps
    flat, ends = episodes.flat(), episodes.length.cumsum(0) - 1
    assert flat.size == episodes.steps == int(episodes.length.sum())
    assert flat.terminated.nonzero().flatten().tolist() == ends.tolist()
    assert torch.equal(spec.terminated(flat.next_observation), flat.terminated)
    joined = (flat.next_observation[:-1] == flat.observation[1:]).all(-1)
    assert (~joined).nonzero().flatten().tolist() == ends[:-1].tolist()
    # A reward of 1 for each step that stood: the fall itself earns none.
    assert episodes.returns().tolist() == (episodes.length - 1).tolist()
    torch.testing.assert_close(episodes.rows(slice(2, 4)).returns(), episodes.returns()[2:4])


def test_two_families_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="a family named 'cheetah-vel' is registered already"):
        register(replace(PENDULUM, name="cheetah-vel"))
    assert register(FAMILIES["cheetah-vel"]) is FAMILIES["cheetah-vel"]
