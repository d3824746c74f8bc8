"""How a lineage is drawn: which lane a version has, and which lines pass it."""

from __future__ import annotations

from datetime import UTC, datetime

from mier_service.ui.lanes import Row, rows, width_px
from mier_service.values import Promotion, VersionOrigin, VersionValue


def version(number: int, parent: int) -> VersionValue:
    return VersionValue(
        number=number,
        parent=parent,
        weights_hash="0" * 64,
        policy_context=[0.0],
        model_context_number=0,
        origin=VersionOrigin.ADAPT,
        promotion=Promotion.UNGATED,
        checkpoint_hash="0" * 64,
        transitions_used=0,
        create_time=datetime(2026, 1, 31, tzinfo=UTC),
    )


def test_a_chain_is_one_lane() -> None:
    """Broken on purpose: a lane for each version."""
    found = rows([version(3, 2), version(2, 1), version(1, 0)])
    assert found == {
        1: Row(lane=0, through=(), joins=(), up=True, down=False),
        2: Row(lane=0, through=(), joins=(), up=True, down=True),
        3: Row(lane=0, through=(), joins=(), up=False, down=True),
    }


def test_a_branch_leaves_its_parent_by_a_lane_of_its_own() -> None:
    """Versions 2 and 4 of 1, 3 of 2. Broken on purpose: `through` with the row at which a line ends."""
    found = rows([version(4, 1), version(3, 2), version(2, 1), version(1, 0)])
    assert {number: row.lane for number, row in found.items()} == {1: 0, 2: 0, 3: 0, 4: 1}
    assert found[1] == Row(lane=0, through=(), joins=(1,), up=True, down=False)
    assert found[2].through == found[3].through == (1,)
    assert found[4] == Row(lane=1, through=(), joins=(), up=False, down=True)
    assert width_px(found) == 36


def test_a_parent_that_is_not_shown_is_pointed_at() -> None:
    """Only the newest are given. Broken on purpose: `down` where the parent is known."""
    found = rows([version(61, 60), version(60, 7)])
    assert found[60] == Row(lane=0, through=(), joins=(), up=True, down=True)
    assert found[61].lane == 0


def test_many_branches_share_the_last_lane() -> None:
    """Broken on purpose: a rail as wide as there are branches."""
    found = rows([version(1, 0), *(version(n, 1) for n in range(2, 40))])
    assert max(row.lane for row in found.values()) == 5
