"""`mier-eval --video`: films of before and after, side by side, with target and actual speed in words and on a scale.

MuJoCo chooses how to draw when it is imported, by MUJOCO_GL, and cannot be imported where that cannot be had. So the
drawing is done by a process of its own (this file as a program): by EGL, else OSMesa, unless MUJOCO_GL says how.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import mujoco
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mier_envs.families import FAMILIES
from mier_mujoco.film import Footage

SUFFIXES = (".mp4", ".gif")
_WIDTH, _HEIGHT, _HEAD, _FOOT, _GAP = 320, 200, 26, 30, 4
"""Of one of the two pictures, of the captions over and under it, and of what is between the two, in pixels."""
_INK, _SOFT, _GROUND, _SCALE, _STRONG = (236, 240, 238), (150, 164, 158), (18, 22, 21), (46, 55, 52), (79, 184, 156)
_GIF_EVERY, _GIF_COLOURS = 2, 48
"""A GIF has every other frame and few colours: it is to be loaded with a page."""
_WITHIN_S = 1800.0
_WAYS = ("egl", "osmesa")
_CAMERA = "track"
"""Of Gymnasium's cheetah: beside it, going along."""

Frame = npt.NDArray[np.uint8]


class CannotDraw(ValueError):
    """There is no way to render here; the message says what to do."""


def make(footage: Footage, path: Path) -> None:
    """Writes the film; the suffix says the format. Raises `CannotDraw`."""
    said = os.environ.get("MUJOCO_GL")
    path.parent.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "footage.npz"
        footage.save(source)
        for way in (said,) if said else _WAYS:
            done = subprocess.run(
                [sys.executable, "-m", "mier_mujoco.video", str(source), str(path)],
                env={**os.environ, "MUJOCO_GL": way},
                capture_output=True,
                text=True,
                timeout=_WITHIN_S,
                check=False,
            )
            if done.returncode == 0:
                return
            failed.append(f"{way}: {(done.stderr.strip() or 'no word of why').splitlines()[-1]}")
    raise CannotDraw(
        f"--video: nothing can be drawn here without a window ({'; '.join(failed)}): install EGL (Debian: libegl1 "
        "libgl1-mesa-dri) or OSMesa (libosmesa6), or set MUJOCO_GL to what there is"
    )


def frames(film: Mapping[str, Any]) -> Iterator[Frame]:
    """RGB [height, width, 3] of each step of what `Footage.save` kept."""
    family = FAMILIES["cheetah-vel-ood"]  # both families have the same body
    body: Any = family.make(family.test_tasks[0]).unwrapped
    names, target = [str(name) for name in film["names"]], float(film["target"])
    with mujoco.Renderer(body.model, _HEIGHT, _WIDTH) as renderer:
        for step, speeds in enumerate(film["speeds"].T):
            pictures = []
            for positions in (film["before"], film["after"]):
                body.data.qpos[:] = positions[min(step, len(positions) - 1)]
                mujoco.mj_forward(body.model, body.data)
                renderer.update_scene(body.data, camera=_CAMERA)
                pictures.append(renderer.render())
            yield captioned(pictures, names, speeds, target)
    body.close()


def captioned(pictures: list[Frame], names: list[str], speeds: npt.NDArray[np.float64], target: float) -> Frame:
    """Two pictures side by side, a head over each, and under it the speed on a scale with the target's mark (NaN: the
    task has none)."""
    large, small = ImageFont.load_default(14), ImageFont.load_default(12)
    image = Image.new("RGB", (2 * _WIDTH + _GAP, _HEAD + _HEIGHT + _FOOT), _GROUND)
    draw = ImageDraw.Draw(image)
    full = 1.3 * target if target > 0 else 10.0
    for side, (picture, name, speed) in enumerate(zip(pictures, names, speeds, strict=True)):
        left = side * (_WIDTH + _GAP)
        image.paste(Image.fromarray(picture), (left, _HEAD))
        draw.text((left + 8, 5), name, _INK, large)
        draw.text((left + 8, _HEAD + _HEIGHT + 7), f"actual {speed:.1f} m/s", _INK, large)
        top, low, high = _HEAD + _HEIGHT + 12, left + 124, left + _WIDTH - 12
        draw.rectangle((low, top, high, top + 6), _SCALE)
        draw.rectangle((low, top, low + (high - low) * float(np.clip(speed / full, 0.0, 1.0)), top + 6), _STRONG)
        if target > 0:
            at = low + (high - low) * target / full
            draw.rectangle((at - 1, top - 5, at + 1, top + 11), _INK)
            draw.text((left + _WIDTH - 8, 6), f"target {target:.1f} m/s", _SOFT, small, anchor="ra")
    return np.asarray(image)


def write(pictures: Iterator[Frame], path: Path, dt_s: float) -> None:
    """In real time."""
    if path.suffix == ".mp4":
        # Its codec wants sides that 2 divides; by default 16 is asked of them, and they are stretched.
        with imageio.get_writer(path, fps=round(1.0 / dt_s), macro_block_size=2, quality=8) as film:
            for picture in pictures:
                film.append_data(picture)  # type: ignore[attr-defined]
        return
    shown = [Image.fromarray(picture) for i, picture in enumerate(pictures) if i % _GIF_EVERY == 0]
    palette = shown[len(shown) // 2].quantize(_GIF_COLOURS)
    first, *more = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in shown]
    first.save(path, save_all=True, append_images=more, duration=round(1000 * dt_s * _GIF_EVERY), loop=0, optimize=True)


def main(source: Path, path: Path) -> None:
    """The drawing process."""
    with np.load(source) as film:
        write(frames(dict(film)), path, float(film["dt_s"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
