"""Task distributions as in the paper: which tasks train, which test, and what the spec says of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mier.types import EnvSpec, Varies
from mier_envs.cheetah_families import mask_of
from mier_envs.families import FAMILIES, Family


def test_speeds_train_below_one_and_test_up_to_two_and_a_half() -> None:
    family = FAMILIES["cheetah-vel-ood"]
    tasks = family.train_tasks(0)
    targets = np.array([task.target for task in tasks], np.float64)
    assert len(tasks) == 100
    assert 0.0 <= targets.min() < 0.05 < 0.95 < targets.max() < 1.0
    assert np.abs(np.histogram(targets, 4, (0.0, 1.0))[0] - 25).max() < 12  # uniform
    assert [task.target for task in family.test_tasks] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert [task.name for task in family.test_tasks] == ["0.5 m/s", "1 m/s", "1.5 m/s", "2 m/s", "2.5 m/s"]
    assert all(mask_of(task) == (1.0,) * 6 for task in (*tasks, *family.test_tasks))


def test_the_seed_decides_the_training_speeds_and_no_global_state_does() -> None:
    family = FAMILIES["cheetah-vel-ood"]
    state = repr(np.random.get_state(legacy=False))  # noqa: NPY002
    first = family.train_tasks(1)
    assert family.train_tasks(1) == first
    assert family.train_tasks(2) != first
    assert repr(np.random.get_state(legacy=False)) == state  # noqa: NPY002


def negated(mask: tuple[float, ...]) -> set[int]:
    return {i for i, sign in enumerate(mask) if sign == -1.0}


def test_three_of_the_first_five_joints_train_two_and_the_sixth_test() -> None:
    family = FAMILIES["cheetah-negated"]
    train = [negated(mask_of(task)) for task in family.train_tasks(0)]
    test = [negated(mask_of(task)) for task in family.test_tasks]
    assert sorted(map(sorted, train)) == [list(c) for c in itertools.combinations(range(5), 3)]
    assert sorted(map(sorted, test)) == [[*c, 5] for c in itertools.combinations(range(5), 2)]
    assert all(task.target is None for task in (*family.train_tasks(0), *family.test_tasks))
    assert len({task.name for task in family.test_tasks}) == 10


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_spec_describes_the_environment(family: Family) -> None:
    spec = EnvSpec.from_json(family.spec_json())
    env = family.make(family.test_tasks[0])
    assert spec.id == family.environment_id == env.spec.id  # type: ignore[union-attr]
    assert env.observation_space.shape == (spec.observation_dim,) == (17,)
    assert env.observation_space.dtype == np.float32
    np.testing.assert_array_equal(env.action_space.low, spec.action_low)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(env.action_space.high, spec.action_high)  # type: ignore[attr-defined]
    assert spec.dt_s == env.unwrapped.dt  # type: ignore[attr-defined]
    assert spec.horizon_steps == env.spec.max_episode_steps == 200  # type: ignore[union-attr]
    assert spec.healthy_ranges == ()
    assert spec.varies is (Varies.DYNAMICS if family.name == "cheetah-negated" else Varies.REWARD)
    assert len(set(spec.observation_names)) == 17
    env.close()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_names_stand_where_the_values_are(family: Family) -> None:
    """Each observation entry is the joint that its name says, read from MuJoCo by name."""
    env = family.make(family.test_tasks[0])
    env.reset(seed=0)
    observation = env.step(env.action_space.sample())[0]
    data = env.unwrapped.data  # type: ignore[attr-defined]
    for name, value in zip(family.spec_json()["observation_names"], observation, strict=True):
        joint, what = name.rsplit("_", 1)
        field = data.joint(joint).qpos if what == "position" else data.joint(joint).qvel
        assert value == np.float32(field[0]), name
    for index, name in enumerate(family.spec_json()["action_names"]):
        assert env.unwrapped.model.actuator(index).name == name  # type: ignore[attr-defined]
    env.close()


def test_the_standard_family_is_the_benchmarks() -> None:
    family = FAMILIES["cheetah-vel"]
    train, test = family.train_tasks(0), family.test_tasks
    assert (len(train), len(test)) == (100, 30)
    assert all(0.0 <= task.target <= 3.0 for task in (*train, *test) if task.target is not None)
    assert not {task.target for task in train} & {task.target for task in test}
    assert family.train_tasks(1) != train
