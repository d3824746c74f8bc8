"""Films of before and after: what is said in them, and that they are drawn without a window."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from mier_envs.cheetah_families import vel_task
from mier_envs.families import FAMILIES
from mier_mujoco import video
from mier_mujoco.film import Camera, Film, Footage

POSITION_DIM = 9


def film(speed: float, steps: int = 12, version: int = 1) -> Film:
    """A cheetah that slides along."""
    positions = np.zeros((steps, POSITION_DIM))
    positions[:, 0] = speed * 0.05 * np.arange(steps)
    return Film(version, positions, dt_s=0.05)


@pytest.fixture(scope="module")
def footage() -> Footage:
    return Footage(vel_task(2.0), film(0.5), film(2.0, steps=9, version=2), "context-adapted")


@pytest.fixture
def drawable() -> None:
    """Skips where MuJoCo finds neither EGL nor OSMesa: apt-get install libosmesa6, or libegl1 libgl1-mesa-dri."""
    for way in ("egl", "osmesa"):
        probe = f"import os; os.environ['MUJOCO_GL'] = '{way}'; import mujoco; mujoco.GLContext(8, 8)"
        if subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0:
            return
    pytest.skip("nothing draws here without a window: apt-get install libosmesa6, or libegl1 libgl1-mesa-dri")


def test_the_speed_is_that_of_the_last_half_second() -> None:
    """Broken on purpose: the mean since the start."""
    positions = np.zeros((40, POSITION_DIM))
    positions[:, 0] = np.concatenate([np.zeros(20), np.arange(1, 21) * 0.1])
    speed = Film(1, positions, 0.05).speed
    assert speed[0] == 0.0
    assert speed[19] == 0.0
    assert speed[-1] == pytest.approx(2.0)


def test_a_camera_takes_down_where_the_robot_is() -> None:
    """Broken on purpose: the same array for each step, which the simulator goes on writing to."""
    environment = FAMILIES["cheetah-vel-ood"].make(vel_task(1.0))
    camera = Camera(environment)
    environment.reset(seed=0)
    for _ in range(3):
        environment.step(np.ones(6, np.float32))
        camera.shoot()
    taken = camera.film(7)
    environment.close()
    assert taken.positions.shape == (3, POSITION_DIM)
    assert taken.policy_version == 7
    assert len({row.tobytes() for row in taken.positions}) == 3


def test_the_scale_tells_the_two_speeds_and_the_target() -> None:
    """Broken on purpose: both sides with the first one's speed."""
    grey = np.full((200, 320, 3), 90, np.uint8)
    picture = video.captioned([grey, grey], ["before", "after"], np.array([0.5, 2.0]), 2.0)
    strong = (picture == (79, 184, 156)).all(2)
    before, after = strong[:, :320].sum(), strong[:, 324:].sum()
    assert 3.5 < after / before < 4.5
    without = video.captioned([grey, grey], ["before", "after"], np.array([0.5, 2.0]), float("nan"))
    assert without.shape == picture.shape


@pytest.mark.usefixtures("drawable")
@pytest.mark.parametrize("suffix", video.SUFFIXES)
def test_a_film_is_as_long_as_the_longer_episode(footage: Footage, tmp_path: Path, suffix: str) -> None:
    """Broken on purpose: a film that ends with the shorter one; pictures of nothing."""
    path = tmp_path / f"film{suffix}"
    video.make(footage, path)
    shown = [np.asarray(frame)[..., :3] for frame in imageio.get_reader(path).iter_data()]
    assert len(shown) == (12 if suffix == ".mp4" else 6)
    assert shown[0].shape == (256, 644, 3)
    assert shown[-1][30:220, :320].std() > 5, "the left picture shows something"
    assert np.abs(shown[-1].astype(int) - shown[0].astype(int)).max() > 20, "and it moves"


def test_where_nothing_draws_it_says_what_to_install(
    footage: Footage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken on purpose: the traceback of the drawing process."""
    monkeypatch.setenv("MUJOCO_GL", "no-such-thing")
    with pytest.raises(video.CannotDraw, match="libosmesa6"):
        video.make(footage, tmp_path / "film.gif")
