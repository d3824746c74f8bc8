"""Figures as data, for the script that draws them."""

from __future__ import annotations

import json

from mier_service.ui.charts import COLOURS, GREY, returns
from mier_service.values import EpisodeReturnValue


def episodes(*chosen_by: int) -> list[EpisodeReturnValue]:
    """Newest first, as history has them; an episode's return is 10 times its number."""
    found = [EpisodeReturnValue(episode=i, total=10.0 * i, policy_version=v) for i, v in enumerate(chosen_by)]
    return found[::-1]


def test_each_version_has_its_episodes_in_its_colour() -> None:
    """Broken on purpose: newest first, so that time runs backwards; an episode of several versions left out."""
    drawn = json.loads(returns(episodes(1, 1, 0, 2)).json)
    assert drawn["x"] == [-3, -2, -1, 0]
    assert {line["label"]: (line["y"], line["colour"]) for line in drawn["lines"]} == {
        "v1": ([0.0, 10.0, None, None], 1),
        "v2": ([None, None, None, 30.0], 2),
        "others": ([None, None, 20.0, None], GREY),
    }


def test_of_many_versions_the_newest_keep_their_colours() -> None:
    """Broken on purpose: two versions of one colour, which nobody could tell apart."""
    chart = returns(episodes(*range(1, 31)))
    colours = [line.colour for line in chart.lines]
    assert len(set(colours)) == len(colours) == COLOURS
    assert [line.label for line in chart.lines] == [*(f"v{n}" for n in range(24, 31)), "others"]
    assert sum(y is not None for line in chart.lines for y in line.y) == 30


def test_no_episode_is_an_empty_chart() -> None:
    """Broken on purpose: a chart of one line without a point, which would be drawn as an empty frame."""
    assert returns([]).empty
    assert not returns(episodes(1)).empty
