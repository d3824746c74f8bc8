"""The ROS 2 node's logic, without ROS: messages are what has their fields. The loop and the learner run against a real
service."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mier_client import Acted, Client, DeadlineExceeded, EnvironmentSpec, HealthyRange, Problem, Step, Varies
from mier_client.values import Session
from mier_ros2.learner import Learner
from mier_ros2.loop import Loop, WithoutAction
from mier_ros2.mapping import Entry, ObservationMap, Unusable, command
from tests.contract.conftest import REWARD
from tests.contract.server import Server

ENTRIES = ["odometry/pose.pose.position/x", "joint/position/arm", "imu/angular_velocity/y", "joint/velocity/arm"]


def joints(**of: float) -> SimpleNamespace:
    """A JointState of two joints, the other one first."""
    return SimpleNamespace(
        name=["other", "arm"],
        position=[9.0, of.get("position", 0.0)],
        velocity=[9.0, of.get("velocity", 0.0)],
        effort=[],
    )


def vector(x: float = 0.0, y: float = 0.0, z: float = 0.0, w: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(x=x, y=y, z=z, w=w)


def imu(**of: Any) -> SimpleNamespace:
    return SimpleNamespace(
        orientation=of.get("orientation", vector(w=1.0)), angular_velocity=of.get("angular_velocity", vector())
    )


def odometry(x: float) -> SimpleNamespace:
    return SimpleNamespace(pose=SimpleNamespace(pose=SimpleNamespace(position=vector(x=x))))


def test_an_observation_is_made_in_the_environments_order() -> None:
    found = ObservationMap(ENTRIES, ("x", "y", "dx", "dy"))
    assert found.sources == ["imu", "joint", "odometry"]
    messages = {
        "joint": joints(position=0.5, velocity=-2.0),
        "imu": imu(angular_velocity=vector(y=0.25)),
        "odometry": odometry(3.0),
    }
    observation = found.observation(messages)
    assert observation.dtype == np.float32
    assert observation.tolist() == [3.0, 0.5, 0.25, -2.0]


@pytest.mark.parametrize(("name", "axis"), [("roll", "x"), ("pitch", "y"), ("yaw", "z")])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_angles_are_those_of_the_quaternion(name: str, axis: str, scale: float) -> None:
    """Whatever its length."""
    for angle in (-1.2, 0.0, 0.4):
        q = vector(**{axis: scale * math.sin(angle / 2), "w": scale * math.cos(angle / 2)})
        message = imu(orientation=q)
        assert Entry.parse(f"imu/orientation/{name}").read(message) == pytest.approx(angle, abs=1e-12)


def test_a_mapping_that_cannot_be_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"each of 2 observation names \(x, y\), got 1"):
        ObservationMap(["joint/position/arm"], ("x", "y"))
    for text in ("joint/position", "camera/image/0", "joint/temperature/arm", "imu//x"):
        with pytest.raises(ValueError, match="expected"):
            Entry.parse(text)


@pytest.mark.parametrize(
    ("entry", "message", "words"),
    [
        ("joint/position/leg", joints(), "leg"),
        ("joint/effort/arm", joints(), "0 values of effort"),
        ("joint/position/arm", joints(position=math.nan), "finite"),
        ("imu/linear_speed/x", imu(), "linear_speed"),
        ("imu/orientation/yaw", imu(orientation=vector()), "finite"),
    ],
)
def test_a_message_that_lacks_something_is_told(entry: str, message: Any, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        Entry.parse(entry).read(message)


def test_commands_keep_to_the_bounds() -> None:
    assert command(np.array([1.5, -0.5], np.float32), (-1.0, -2.0), (1.0, 2.0)) == [1.0, -0.5]


class Bench:
    """A loop on a bench: time passes as it is told, and what is reported is kept."""

    def __init__(self, without: WithoutAction = WithoutAction.HOLD, fall_at: float = 100.0) -> None:
        self.steps: list[Step] = []
        self.breaks = 0
        self.late = False
        self.environment = EnvironmentSpec(
            "bench", ("x", "y", "dx", "dy"), ("a", "b"), (-1.0, -1.0), (1.0, 1.0), 0.1, 5, Varies.REWARD,
            (HealthyRange(0, -fall_at, fall_at),),
        )  # fmt: skip
        mapping = ObservationMap(ENTRIES, self.environment.observation_names)
        self.loop = Loop(self.environment, mapping, self.act, self.steps.append, self.broke, without, 0.25)
        self.now_s = 10.0

    def act(self, observation: np.ndarray, episode: int, step: int) -> Acted:
        if self.late:
            raise DeadlineExceeded(Problem("DEADLINE_EXCEEDED", "too late"))
        return Acted(np.array([observation[0] / 10, 0.5], np.float32), 3, "")

    def broke(self) -> None:
        self.breaks += 1

    def see(self, x: float) -> None:
        self.loop.inputs.take("odometry", odometry(x), self.now_s)
        self.loop.inputs.take("joint", joints(), self.now_s)
        self.loop.inputs.take("imu", imu(), self.now_s)

    def tick(self, x: float | None, reward: float | None = 1.0) -> tuple[list[float] | None, str]:
        """One period; what is seen (None: nothing comes) and the reward of the step before."""
        self.now_s += 0.1
        if x is not None:
            self.see(x)
        if reward is not None:
            self.loop.reward(reward)
        done = self.loop.tick(self.now_s)
        return done.command, done.trouble


def test_whole_steps_are_reported_and_episodes_end_at_the_horizon() -> None:
    bench = Bench()
    commands = [bench.tick(float(i))[0] for i in range(7)]
    assert commands[3] == pytest.approx([0.3, 0.5])
    assert [step.observation[0] for step in bench.steps] == [0, 1, 2, 3, 4, 5]
    assert [step.next_observation[0] for step in bench.steps] == [1, 2, 3, 4, 5, 6]
    assert [step.truncated for step in bench.steps] == [False] * 4 + [True, False]
    assert {step.policy_version for step in bench.steps} == {3}
    assert (bench.loop.episode, bench.loop.step, bench.breaks) == (1, 1, 0)


def test_a_step_without_its_reward_ends_the_episode_unreported() -> None:
    bench = Bench()
    bench.tick(0.0)
    bench.tick(1.0)
    bench.tick(2.0, reward=None)
    bench.tick(3.0)
    assert [step.observation[0] for step in bench.steps] == [0, 2]
    assert (bench.breaks, bench.loop.episode) == (1, 1)


@pytest.mark.parametrize(("without", "expected"), [(WithoutAction.HOLD, [0.4, 0.5]), (WithoutAction.ZERO, [0.0, 0.0])])
def test_without_an_action_the_robots_rule_holds(without: WithoutAction, expected: list[float]) -> None:
    """And what was commanded is reported as chosen by no version."""
    bench = Bench(without)
    bench.tick(4.0)
    bench.late = True
    commanded, trouble = bench.tick(5.0)
    assert commanded == pytest.approx(expected)
    assert "too late" in trouble
    bench.late = False
    bench.tick(6.0)
    assert [step.policy_version for step in bench.steps] == [3, 0]
    assert bench.steps[1].action.tolist() == pytest.approx(expected)


def test_where_nothing_is_commanded_nothing_is_reported() -> None:
    bench = Bench(WithoutAction.SILENT)
    bench.tick(4.0)
    bench.late = True
    assert bench.tick(5.0)[0] is None
    bench.late = False
    bench.tick(6.0)
    bench.tick(7.0)
    assert [step.observation[0] for step in bench.steps] == [4, 6]
    assert bench.breaks == 1


def test_sources_that_fall_silent_stop_the_acting() -> None:
    bench = Bench()
    assert bench.tick(None)[1].startswith("nothing came from imu, joint, odometry")
    bench.tick(1.0)
    bench.tick(2.0)
    for _ in range(2):
        assert bench.tick(None)[1] == ""
    commanded, trouble = bench.tick(None)
    assert "nothing came" in trouble
    assert commanded == pytest.approx([0.2, 0.5])
    assert bench.breaks == 1


def test_after_a_fall_nothing_acts_until_an_episode_is_begun() -> None:
    bench = Bench(fall_at=2.5)
    for x in (0.0, 1.0, 3.0, 0.0):
        _, trouble = bench.tick(x)
    assert "fell" in trouble
    assert [step.terminated for step in bench.steps] == [False, True]
    bench.loop.begin_episode()
    assert bench.tick(0.5)[1] == ""
    assert (bench.loop.episode, bench.loop.step) == (1, 0)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client.connect(f"grpc://{server.grpc}") as made:
        yield made


@pytest.fixture
def session(client: Client) -> Session:
    return client.create_session(REWARD)


def test_a_robot_lives_through_a_session(client: Client, session: Session) -> None:
    """Three episodes over a real service, the second broken off; adapted to after each."""
    told: list[str] = []
    learner = Learner(client, session.id, 4, 1, told.append)
    mapping = ObservationMap(ENTRIES, session.environment.observation_names)

    def act(observation: np.ndarray, episode: int, step: int) -> Acted:
        return client.act(session.id, observation, episode=episode, step=step)

    loop = Loop(session.environment, mapping, act, learner.add, learner.end_episode, max_input_age_s=1.0, episode=4)
    now_s, x = 0.0, 0.0
    for tick in range(20 + 8 + 15):
        now_s, x = now_s + 0.05, x + 0.01
        if tick == 28:
            loop.begin_episode()
        loop.inputs.take("odometry", odometry(x), now_s)
        loop.inputs.take("joint", joints(position=x), now_s)
        loop.inputs.take("imu", imu(), now_s)
        loop.reward(x)
        assert loop.tick(now_s).trouble == ""
        learner.work()
    learner.close()
    runs = [(run.episode, len(run.reward)) for run in client.list_transitions(session.id)]
    assert runs == [(4, 20), (5, 7), (6, 14)]
    assert client.get_session(session.id).model_context.number >= 1
    assert any("out-of-distribution score" in line for line in told)
