"""A lineage as it is drawn: newest version on top, a line down to each parent, a lane for each branch.

3 ●        a child goes on in its parent's lane if it is the parent's first, else it opens a lane of its own
2 │ ●      ──► rows 3 (lane 0), 2 (lane 1), 1 (lane 0, with the corner of 2's branch)
1 ●─┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mier_service.values import VersionValue

LANE_PX, NODE_PX = 18, 24
"""Width of a lane; how far below the top of its row a version's dot is."""
_MOST_LANES = 6
"""Branches beyond share the last lane."""


@dataclass(frozen=True)
class Row:
    """What the rail beside one version shows; lanes from 0."""

    lane: int
    through: tuple[int, ...]
    """Lanes whose line goes past."""
    joins: tuple[int, ...]
    """Lanes of branches that begin at this version: they come from above and end here."""
    up: bool
    """Whether a child goes on in its own lane."""
    down: bool
    """Whether it has a parent below, shown or not."""


def rows(versions: Sequence[VersionValue]) -> dict[int, Row]:
    """By the number of each version given; parents may be missing."""
    lane_of: dict[int, int] = {}
    lanes = 0
    continued: set[int] = set()
    for version in sorted(versions, key=lambda v: v.number):
        if version.parent in lane_of and version.parent not in continued:
            lane_of[version.number] = lane_of[version.parent]
            continued.add(version.parent)
        else:
            lane_of[version.number] = min(lanes, _MOST_LANES - 1)
            lanes += 1
    edges = [(v.parent, v.number) for v in versions if v.parent]
    return {
        v.number: Row(
            lane=lane_of[v.number],
            through=tuple(sorted({lane_of[child] for parent, child in edges if parent < v.number < child})),
            joins=tuple(sorted({lane_of[c] for p, c in edges if p == v.number and lane_of[c] != lane_of[v.number]})),
            up=any(p == v.number and lane_of[c] == lane_of[v.number] for p, c in edges),
            down=v.parent > 0,
        )
        for v in versions
    }


def width_px(found: dict[int, Row]) -> int:
    """Of the rail."""
    return LANE_PX * (1 + max((row.lane for row in found.values()), default=0))
