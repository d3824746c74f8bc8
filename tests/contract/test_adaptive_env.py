"""A loop of somebody's own, made adaptive: what it lives through is stored, and the session learns from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from mier_client import Client, Conflict, NotFound, RemotePolicy, Timeouts
from mier_client.adaptive_env import AdaptiveEnv, Learning
from tests.contract.conftest import REWARD
from tests.contract.helpers import CALL_S
from tests.contract.server import Server

EPISODE_STEPS = 30
PATIENT = Timeouts(act_s=CALL_S, call_s=CALL_S, adapt_s=CALL_S)


class Point(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point that is pushed about: the environment of the tiny checkpoints, as somebody would write it."""

    def __init__(self, high: float = 2.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(np.array([-1.0, -high], np.float32), np.array([1.0, high], np.float32))
        self.lived: list[tuple[Any, ...]] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.standard_normal(4)
        self.steps = 0
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        before = self.state.copy()
        self.state = self.state + 0.05 * np.concatenate([self.state[2:], action])
        self.steps += 1
        reward, truncated = float(self.state[2]), self.steps == EPISODE_STEPS
        self.lived.append((before, action, reward, self.state.copy(), False, truncated))
        return self.state.copy(), reward, False, truncated, {}


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, server: Server) -> str:
    return server.http if request.param == "http" else f"grpc://{server.grpc}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client.connect(url, PATIENT) as made:
        yield made


def same(client: Client, env: AdaptiveEnv[Any, Any], episode: int, lived: list[Any], versions: Any) -> None:
    """That the service holds these steps of an episode: submitted once more, each is known already."""
    names = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
    columns: dict[str, Any] = dict(zip(names, map(np.asarray, zip(*lived, strict=True)), strict=True))
    again = client.submit_transitions(env.session.id, episode=episode, first_step=0, policy_version=versions, **columns)
    assert (again.stored, again.duplicates) == (0, len(lived))


def test_two_lines_make_a_loop_adaptive(url: str) -> None:
    """Broken on purpose: `reset` not ending the episode that was broken off; seen: steps of two in one."""
    point = Point()
    env = AdaptiveEnv(point, url, REWARD, seed=7)
    policy = env.policy

    def run(steps: int) -> None:
        observation, _ = env.reset(seed=1)
        for _ in range(steps):
            observation, _, terminated, truncated, _ = env.step(policy.act(observation))
        assert (terminated or truncated) is (steps == EPISODE_STEPS)

    run(EPISODE_STEPS)
    assert env.adapted is not None
    assert env.adapted.active_version.number == 2
    assert env.adapted.model_context.transitions_used == EPISODE_STEPS
    run(5)  # and then begins anew
    run(EPISODE_STEPS)
    run(3)
    env.close()
    assert env.pending_steps == 0
    with Client.connect(url, PATIENT) as client:
        assert client.get_session(env.session.id).transitions_count == 2 * EPISODE_STEPS + 8
        first, rest = point.lived[:EPISODE_STEPS], point.lived[EPISODE_STEPS:]
        same(client, env, 0, first, 1)
        broken = [(*row[:-1], i == 4) for i, row in enumerate(rest[:5])]
        same(client, env, 1, broken, 2)
        same(client, env, 2, rest[5 : 5 + EPISODE_STEPS], 2)
        # It explored under the version that it then had, each step by its number.
        acted = client.act(env.session.id, rest[7 + EPISODE_STEPS][0], episode=3, step=2)
        assert acted.policy_version == env.adapted.active_version.number
        assert acted.action.tolist() == rest[7 + EPISODE_STEPS][1].tolist()


def test_what_the_policy_did_not_choose_is_recorded_as_nobodys(client: Client) -> None:
    point = Point()
    env = AdaptiveEnv(point, client, REWARD, learning=Learning(adapt_every_episodes=None))
    observation, _ = env.reset(seed=1)
    for step in range(EPISODE_STEPS):
        action = env.policy.act(observation)
        observation, *_ = env.step(action if step % 2 else -action)
    assert env.adapted is None
    same(client, env, 0, point.lived, [step % 2 for step in range(EPISODE_STEPS)])
    env.close()
    assert client.ready()  # it stays its owner's


def test_a_session_that_does_not_learn_says_why(client: Client) -> None:
    env = AdaptiveEnv(Point(), client, REWARD, learning=Learning(finetune_every_episodes=2))
    client.pause(env.session.id)
    for episode in range(3):
        observation, _ = env.reset(seed=episode)
        for _ in range(EPISODE_STEPS):
            observation, *_ = env.step(env.policy.predict(observation)[0])
        if episode == 0:
            assert isinstance(env.refused, Conflict)
            assert env.refused.reason == "SESSION_PAUSED"
            client.resume(env.session.id)
    assert env.refused is None
    assert env.operation is not None
    client.cancel_operation(env.operation.id)
    env.close()


def test_another_environment_is_refused_and_leaves_no_session(client: Client) -> None:
    known = {session.id for session in client.list_sessions()}
    with pytest.raises(ValueError, match=r"expected actions from \[-1.0, -2.0\].* came \[-1.0, -3.0\].*RescaleAction"):
        AdaptiveEnv(Point(high=3.0), client, REWARD)
    with pytest.raises(ValueError, match=r"expected observations \[4\] and actions \[2\].* came \[3\] and \[1\]"):
        AdaptiveEnv(gymnasium.make("Pendulum-v1"), client, REWARD)
    with pytest.raises(ValueError, match="expected a checkpoint to open a session on, or session_id"):
        AdaptiveEnv(Point(), client)
    assert {session.id for session in client.list_sessions()} == known
    with pytest.raises(NotFound, match="CHECKPOINT_NOT_FOUND"):
        AdaptiveEnv(Point(), client, "nobody's")


def test_a_loop_goes_on_in_the_session_that_it_had(client: Client) -> None:
    first = AdaptiveEnv(Point(), client, REWARD)
    for env in (first, AdaptiveEnv(Point(), client, session_id=first.session.id, first_episode=1)):
        observation, _ = env.reset(seed=0)
        for _ in range(EPISODE_STEPS):
            observation, *_ = env.step(env.policy.act(observation))
        env.close()
    assert client.get_session(first.session.id).transitions_count == 2 * EPISODE_STEPS


def test_stable_baselines_evaluates_a_session_as_a_model_of_its_own(client: Client) -> None:
    """Its own `evaluate_policy`, on two environments at once."""
    session = client.create_session(REWARD, seed=7)
    with RemotePolicy(client, session.id) as policy:
        envs = DummyVecEnv([lambda: Monitor(Point())] * 2)
        envs.seed(0)
        returns, lengths = evaluate_policy(policy, envs, n_eval_episodes=4, return_episode_rewards=True)
        assert lengths == [EPISODE_STEPS] * 4
        envs.seed(0)
        again, _ = evaluate_policy(policy, envs, n_eval_episodes=4, return_episode_rewards=True)
        assert again == returns
        envs.seed(0)
        explored, _ = evaluate_policy(policy, envs, 4, deterministic=False, return_episode_rewards=True)
        assert explored != returns
