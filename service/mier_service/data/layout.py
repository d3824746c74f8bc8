"""Where things are in a data folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from mier_service.data.files import ContentFiles
from mier_service.data.places import FolderPlace, Place

DATABASE_FILE = "mier.sqlite3"


class Kind(StrEnum):
    """The kinds of immutable files; each has a folder of its name."""

    SAVES = "saves"
    POLICIES = "policies"
    WEIGHTS = "weights"


KINDS = {Kind.SAVES: "safetensors", Kind.POLICIES: "onnx", Kind.WEIGHTS: "safetensors"}
"""How the names of each kind end."""


def content_files(place: Place | Path, kind: Kind) -> ContentFiles:
    """The files of one kind, at a place or in a data folder."""
    return ContentFiles(FolderPlace(place) if isinstance(place, Path) else place, kind.value, KINDS[kind])
