"""A folder of checkpoints with one more: a checkpoint whose fine-tunes ruin what they are given.

Its networks, its stored experience and its gate are those of the good one; only the settings of fine-tuning differ, by
a learning rate three hundred times too high. So a real fine-tune makes a real candidate of it, and a bad one.
"""

from __future__ import annotations

import json
from pathlib import Path

_FILES = ("manifest.json", "weights.safetensors", "relabel_buffer.safetensors")
RUINOUS = {"learning_rate": 0.03, "final_rate": 1.0, "critic_only_updates": 0}
SUFFIX = "-ruined"


def with_ruined(source: Path, name: str, target: Path) -> str:
    """Links the checkpoints of `source` into the folder `target`, and writes the ruined one; its name.

    ValueError if `source` has no such checkpoint.
    """
    if not (source / name / _FILES[0]).is_file():
        raise ValueError(f"expected a checkpoint {name!r} in {source}, found none: give --checkpoints the right folder")
    for manifest in source.glob(f"*/{_FILES[0]}"):
        _link(manifest.parent, target / manifest.parent.name, _FILES)
    ruined = f"{name}{SUFFIX}"
    _link(source / name, target / ruined, _FILES[1:])
    tree = json.loads((source / name / _FILES[0]).read_text())
    tree["name"] = ruined
    tree["configuration"]["finetune"] |= RUINOUS
    tree["sha256"].pop(_FILES[0], None)  # of the manifest itself; it may be left out
    (target / ruined / _FILES[0]).write_text(json.dumps(tree))
    return ruined


def bundled_checkpoints() -> Path:
    """Those of the source tree, or the folder of that name where the demo is started: as `mier-serve` finds them."""
    bundled = Path(__file__).resolve().parents[3] / "checkpoints"
    return bundled if bundled.is_dir() else Path("checkpoints")


def _link(source: Path, target: Path, files: tuple[str, ...]) -> None:
    target.mkdir(parents=True)
    for file in files:
        (target / file).symlink_to((source / file).resolve())
