"""The whole way through: a robot acts, submits, adapts, fine-tunes and acts again, on a checkpoint that was trained."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from mier_client import Client, Promotion, VersionOrigin
from mier_envs.families import FAMILIES
from mier_mujoco.__main__ import run
from mier_mujoco.episodes import Chosen, FloatArray, run_episode
from mier_mujoco.robot import expected_environment
from mier_mujoco.settings import Settings
from tests.e2e.conftest import FAMILY

UPDATES = 40
PNG_BEGINS = b"\x89PNG\r\n\x1a\n"


def test_an_evaluation_leaves_rows_and_a_picture(url: str, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle.jsonl"
    oracle.write_text(json.dumps({"family": FAMILY, "task": "1.5 m/s", "return_mean": -20.0}) + "\n")
    settings = Settings(
        server=url, targets="1.5,0.5", episodes=2, updates=UPDATES, rounds=1, out=tmp_path, oracle=oracle
    )
    shown = io.StringIO()
    rows = run(settings, Console(file=shown, width=100))

    assert rows == json.loads((tmp_path / "results.json").read_text())
    assert [row["target"] for row in rows] == [1.5, 0.5]
    for row in rows:
        assert row["checkpoint"] == FAMILY
        assert row["seed"] == 0
        assert row["versions"]["mujoco"]
        (judged,) = row["rounds"]
        tuned = 4 if judged["promotion"] == "promoted" else 3
        assert judged["gate"].startswith("imagined returns: ")
        assert row["policy_versions"] == {"unadapted": 1, "context_adapted": 3, "finetuned": tuned}
        assert row["real_steps"] == 400
        assert row["finetune_updates"] == [UPDATES]
        assert all(len(returns) == 2 for returns in row["episode_returns"].values())
    assert [row["oracle"] for row in rows] == [-20.0, None]
    assert rows[0]["normalised_gain"]["context_adapted"] is not None
    # A speed nobody trained for: identifying the task must help, or the checkpoint does not do its job.
    assert rows[0]["context_adapted"] > rows[0]["unadapted"]
    assert (tmp_path / "return_vs_target.png").read_bytes().startswith(PNG_BEGINS)
    assert "1.5 m/s" in shown.getvalue()
    with Client.connect(url) as client:
        assert list(client.list_sessions()) == []


def test_lineage_tells_how_each_version_came_to_act(client: Client) -> None:
    family = FAMILIES[FAMILY]
    environment = family.make(family.test_tasks[2])
    session = client.create_session(FAMILY, seed=3, expected_environment=expected_environment(family))

    def act(observation: FloatArray, episode: int, step: int, deterministic: bool) -> Chosen:
        acted = client.act(session.id, observation, deterministic=deterministic, episode=episode, step=step)
        return Chosen(acted.action, acted.policy_version)

    episode = run_episode(environment, act, environment_seed=7, episode=0, deterministic=False, on_step=lambda: None)
    for _ in range(2):  # a robot that lost the acknowledgement sends again
        stored = client.submit_transitions(
            session.id,
            episode=0,
            first_step=0,
            observation=episode.observation,
            action=episode.action,
            reward=episode.reward,
            next_observation=episode.next_observation,
            terminated=episode.terminated,
            truncated=episode.truncated,
            policy_version=episode.policy_version,
        )
        assert stored.transitions_count == 200
    adapted = client.adapt(session.id)
    finished = client.wait_operation(client.finetune(session.id, updates=UPDATES, seed=1).id)
    again = client.adapt(session.id)
    assert finished.result_version == 3
    versions = list(client.list_versions(session.id))
    promoted = versions[2].promotion is Promotion.PROMOTED
    assert again.published is not promoted  # once fine-tuned, adapting moves the model context only
    assert again.model_context.number == adapted.model_context.number + 1

    assert [(v.number, v.parent, v.origin) for v in versions[:3]] == [
        (1, 0, VersionOrigin.CHECKPOINT),
        (2, 1, VersionOrigin.ADAPT),
        (3, 2, VersionOrigin.FINE_TUNE),
    ]
    assert [v.promotion for v in versions[:2]] == [Promotion.UNGATED] * 2
    gate = versions[2].gate
    assert gate is not None
    assert None not in (gate.lowest_difference, gate.highest_difference)
    assert promoted is (gate.lowest_difference > gate.promote_above)  # type: ignore[operator]
    assert versions[0].weights_hash == versions[1].weights_hash != versions[2].weights_hash
    assert versions[2].operation_id == finished.id
    assert versions[2].seed == 1
    assert client.get_session(session.id).active_version == (3 if promoted else 4)
    environment.close()
    client.delete_session(session.id)
