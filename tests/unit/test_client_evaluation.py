"""The evaluation's own reckoning: which tasks, which seeds, which intervals, which rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mier_envs.cheetah_families import mask_of
from mier_mujoco.episodes import Purpose, starting_seed
from mier_mujoco.intervals import mean_interval
from mier_mujoco.oracle import read_oracle
from mier_mujoco.rows import normalised_gain, percentile_ms
from mier_mujoco.settings import Settings


def test_tasks_are_chosen_by_speed_or_by_joints() -> None:
    assert [task.target for task in Settings().tasks()] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert [task.name for task in Settings(targets="2.0, 1.25").tasks()] == ["2 m/s", "1.25 m/s"]
    (negated,) = Settings(task="cheetah-negated", targets="0+1+5").tasks()
    assert mask_of(negated) == (-1.0, -1.0, 1.0, 1.0, 1.0, -1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "hopper"}, "--task: expected one of cheetah-vel-ood"),
        ({"targets": "fast"}, "--targets: expected speeds"),
        ({"task": "cheetah-negated", "targets": "0+9"}, "--targets: expected some of 0"),
        ({"rounds": 0}, "--rounds: expected at least 1"),
        ({"updates": 0}, "--updates: expected at least 1"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(arguments: dict[str, str | int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "transport", "url"),
    [
        ("127.0.0.1", "grpc", "grpc://127.0.0.1:50051"),
        ("robot.local", "http", "http://robot.local:8080"),
        ("robot.local:9000", "grpc", "grpc://robot.local:9000"),
        ("https://robot.local", "grpc", "https://robot.local"),
    ],
)
def test_a_server_is_named_as_short_as_possible(server: str, transport: str, url: str) -> None:
    assert Settings(server=server, transport=transport).url == url  # type: ignore[arg-type]


def test_every_seed_is_evaluated_from_the_same_starts_and_explores_from_its_own() -> None:
    assert starting_seed(0, Purpose.EVALUATE, 3) == starting_seed(1, Purpose.EVALUATE, 3)
    seeds = {starting_seed(s, p, i) for s in (0, 1) for p in Purpose for i in range(10)}
    assert len(seeds) == 30


def test_an_interval_is_over_seeds_where_there_are_several() -> None:
    found = mean_interval([[0.0, 2.0], [3.0, 3.0], [5.0, 5.0]])
    assert found.over == "seeds"
    assert found.mean == 3.0
    # Means 1, 3, 5: standard deviation 2, t(2) = 4.303.
    assert found.high == pytest.approx(3.0 + 4.303 * 2.0 / 3**0.5)
    assert found.low == pytest.approx(3.0 - 4.303 * 2.0 / 3**0.5)


def test_an_interval_of_one_seed_is_over_its_episodes() -> None:
    found = mean_interval([[1.0, 3.0]])
    assert (found.mean, found.over) == (2.0, "episodes")
    assert found.high == pytest.approx(2.0 + 12.706)
    assert mean_interval([[4.0]]).low is None


def test_gain_is_the_share_of_the_way_to_the_oracle() -> None:
    assert normalised_gain(-50.0, -200.0, 0.0) == 0.75
    assert normalised_gain(-50.0, -200.0, None) is None
    assert normalised_gain(-50.0, -200.0, -200.0) is None


def test_percentiles_are_of_the_samples() -> None:
    assert percentile_ms([0.003, 0.001, 0.002], 0.5) == 2.0
    assert percentile_ms([0.003, 0.001, 0.002], 0.99) == 3.0


def test_the_oracle_is_averaged_over_its_seeds_and_family(tmp_path: Path) -> None:
    path = tmp_path / "oracle.jsonl"
    path.write_text(
        '{"family": "a", "task": "1 m/s", "return_mean": -10}\n'
        '{"family": "a", "task": "1 m/s", "return_mean": -20}\n\n'
        '{"family": "b", "task": "1 m/s", "return_mean": 500}\n'
    )
    assert read_oracle(path, "a") == {"1 m/s": -15.0}
    assert read_oracle(None, "a") == {}
    path.write_text('{"family": "a"}\n')
    with pytest.raises(ValueError, match=r"oracle\.jsonl:1: expected a JSON object"):
        read_oracle(path, "a")
