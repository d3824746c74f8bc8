"""Batched physics equals the Gymnasium environment bit for bit; rewards, signs and ends are as specified."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mier_envs.cheetah import CheetahNegatedEnv, forward_reward, vel_reward
from mier_envs.cheetah_families import batched_cheetahs
from mier_envs.compilation import expecting_settotalmass
from mier_envs.families import FAMILIES, Family

STEPS = 200


def place(env: gymnasium.Env[Any, Any], qpos: np.ndarray, qvel: np.ndarray) -> None:
    env.unwrapped.set_state(qpos, qvel)  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_batched_physics_is_the_environment_bit_for_bit(family: Family) -> None:
    tasks = [family.test_tasks[i] for i in (0, 2, 4)]
    rng = np.random.default_rng(0)
    batch, qpos, qvel = batched_cheetahs(tasks), rng.uniform(-0.1, 0.1, (3, 9)), 0.1 * rng.standard_normal((3, 9))
    # Beyond the bounds as well: both clip.
    actions = rng.uniform(-1.3, 1.3, (STEPS, 3, 6)).astype(np.float32)
    observed = [batch.set_state(qpos, qvel)]
    rewarded = []
    for action in actions:
        observation, reward, fallen = batch.step(action)
        assert not fallen.any()
        observed.append(observation)
        rewarded.append(reward)
    assert observed[-1].dtype == rewarded[-1].dtype == np.float32
    moved = 0.0
    for row, task in enumerate(tasks):
        env = family.make(task)
        env.reset(seed=0)
        place(env, qpos[row], qvel[row])
        for step in range(STEPS):
            seen, earned, terminated, truncated, info = env.step(actions[step, row])
            np.testing.assert_array_equal(seen, observed[step + 1][row])
            assert np.float32(float(earned)) == rewarded[step][row]
            assert not terminated
            assert truncated is (step == STEPS - 1)  # time runs out, nothing terminates
            moved = max(moved, abs(info["speed"]))
        env.close()
    assert moved > 1.0  # the comparison is of real motion


def test_rows_do_not_meet() -> None:
    family = FAMILIES["cheetah-negated"]
    both, alone = batched_cheetahs(list(family.test_tasks[:2])), batched_cheetahs([family.test_tasks[1]])
    rng = np.random.default_rng(3)
    qpos, qvel = rng.uniform(-0.1, 0.1, (2, 9)), rng.standard_normal((2, 9))
    both.set_state(qpos, qvel)
    alone.set_state(qpos[1:], qvel[1:])
    for _ in range(30):
        action = rng.uniform(-1.0, 1.0, (2, 6))
        np.testing.assert_array_equal(both.step(action)[0][1], alone.step(action[1:])[0][0])


def test_a_step_depends_on_positions_velocities_and_action_alone() -> None:
    """The solver starts cold: the same state reached by another past goes on the same."""
    family = FAMILIES["cheetah-vel-ood"]
    env = family.make(family.test_tasks[0])
    after = []
    for past in (0, 7):
        env.reset(seed=past)
        for _ in range(past):
            env.step(np.full(6, -0.8, np.float32))
        place(env, np.linspace(-0.1, 0.1, 9), np.linspace(-1.0, 1.0, 9))
        after.append([env.step(action)[0] for action in np.full((5, 6), 0.3, np.float32)])
    np.testing.assert_array_equal(after[0], after[1])
    env.close()


def test_batched_starts_are_distributed_as_the_environments() -> None:
    family = FAMILIES["cheetah-vel-ood"]
    batch = batched_cheetahs(list(family.test_tasks) * 400)
    first = batch.reset(np.random.default_rng(0))
    env = family.make(family.test_tasks[0])
    single = np.stack([env.reset(seed=i)[0] for i in range(500)])
    positions, velocities = slice(0, 8), slice(8, 17)
    assert np.abs(first[:, positions]).max() <= 0.1
    assert np.abs(single[:, positions]).max() <= 0.1
    for rows in (first, single):
        np.testing.assert_allclose(rows[:, positions].std(0), 0.1 / np.sqrt(3), rtol=0.12)
        np.testing.assert_allclose(rows[:, velocities].std(0), 0.1, rtol=0.12)
        assert np.abs(rows.mean(0)).max() < 0.02
    np.testing.assert_array_equal(batch.reset(np.random.default_rng(0)), first)
    assert not np.array_equal(batch.reset(np.random.default_rng(1)), first)
    env.close()


@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is:UserWarning")
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_gymnasiums_own_checker_finds_nothing(family: Family) -> None:
    env = family.make(family.test_tasks[0])
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


# Rewards.


def test_speed_reward() -> None:
    action = np.array([[1.0, -1.0, 0.5, 0.0, 0.0, 0.0], [0.0] * 6])
    found = vel_reward(np.array([1.5, 0.5]), action, np.array([2.0, 0.25]))
    np.testing.assert_allclose(found, [-0.5 - 0.05 * 2.25, -0.25])


def test_forward_reward() -> None:
    action = np.array([[1.0, -1.0, 0.5, 0.0, 0.0, 0.0], [0.0] * 6])
    np.testing.assert_allclose(forward_reward(np.array([1.5, -0.5]), action), [1.5 - 0.1 * 2.25, -0.5])


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_rewards_are_of_the_position_difference_and_the_clipped_action(family: Family) -> None:
    task = family.test_tasks[1]
    env = family.make(task)
    env.reset(seed=1)
    for scale in (0.5, 3.0):
        before = env.unwrapped.data.qpos[0]  # type: ignore[attr-defined]
        action = np.full(6, scale, np.float32)
        _, reward, _, _, info = env.step(action)
        speed = (env.unwrapped.data.qpos[0] - before) / 0.05  # type: ignore[attr-defined]
        cost = 6 * min(scale, 1.0) ** 2
        expected = speed - 0.1 * cost if task.target is None else -abs(speed - task.target) - 0.05 * cost
        assert reward == pytest.approx(expected)
        assert info["speed"] == pytest.approx(speed)
    env.close()


def test_standing_still_costs_the_target_speed() -> None:
    family = FAMILIES["cheetah-vel-ood"]
    env = family.make(family.test_tasks[3])  # 2 m/s
    env.reset(seed=0)
    total = sum(float(env.step(np.zeros(6, np.float32))[1]) for _ in range(STEPS))
    assert total == pytest.approx(-200 * 2.0, abs=10.0)
    env.close()


def test_a_negated_joint_answers_the_opposite_command() -> None:
    plain, negated = CheetahNegatedEnv((1.0,) * 6), CheetahNegatedEnv((1.0, -1.0, 1.0, 1.0, 1.0, -1.0))
    signs, rng = np.array([1.0, -1.0, 1.0, 1.0, 1.0, -1.0], np.float32), np.random.default_rng(0)
    for env in (plain, negated):
        env.reset(seed=4)
    for _ in range(50):
        action = rng.uniform(-1.0, 1.0, 6).astype(np.float32)
        one, other = plain.step(action), negated.step(action * signs)
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]
    assert not np.array_equal(plain.step(action)[0], negated.step(action)[0])


@pytest.mark.parametrize("mask", [(1.0,) * 5, (1.0, 1.0, 1.0, 1.0, 1.0, 0.5), (0.0,) * 6])
def test_a_mask_that_is_not_signs_is_refused(mask: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"mask needs 6 entries of \+1 or -1"):
        CheetahNegatedEnv(mask)


# The compiler's notice.


def test_loading_is_silent_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for family in FAMILIES.values():
        family.batch(list(family.test_tasks)).reset(np.random.default_rng(0))
        family.make(family.test_tasks[0]).reset(seed=0)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


NOTICED = '<mujoco><compiler settotalmass="14"/><worldbody><body><geom size="1"/></body></worldbody></mujoco>'


def test_other_warnings_still_reach_the_user() -> None:
    before = mujoco.get_mju_user_warning()

    def load() -> None:
        with expecting_settotalmass():
            mujoco.MjModel.from_xml_string(NOTICED)
            mujoco.get_mju_user_warning()("something else is wrong")

    with pytest.warns(RuntimeWarning, match="something else") as caught:
        load()
    assert len(caught) == 1
    assert Path(caught[0].filename) == Path(__file__)
    assert mujoco.get_mju_user_warning() is before


def test_an_error_inside_still_gives_the_handler_back() -> None:
    before = mujoco.get_mju_user_warning()
    with pytest.raises(ValueError, match="XML"), expecting_settotalmass():
        mujoco.MjModel.from_xml_string("<mujoco")
    assert mujoco.get_mju_user_warning() is before


def test_the_physics_is_that_of_gymnasiums_own_cheetah() -> None:
    """Nothing about the model was changed on the way: equal to the plain environment's, byte for byte."""
    with warnings.catch_warnings(), expecting_settotalmass():
        plain = gymnasium.make("HalfCheetah-v5").unwrapped.model  # type: ignore[attr-defined]
    family = FAMILIES["cheetah-vel-ood"]
    ours = [batched_cheetahs([family.test_tasks[0]]).model, family.make(family.test_tasks[0]).unwrapped.model]  # type: ignore[attr-defined]
    size = mujoco.mj_sizeModel(plain)
    images = []
    for model in (plain, *ours):
        model.vis.global_.offwidth = model.vis.global_.offheight = 480  # the renderer's, not the physics'
        image = np.zeros(size, np.uint8)
        mujoco.mj_saveModel(model, None, image)
        images.append(image.tobytes())
    assert images[0] == images[1] == images[2]
