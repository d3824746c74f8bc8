"""A robot as LeRobot's loops know it, in a process of its own, steered by the service.

    mier-serve                               # in another terminal
    python examples/lerobot_style_robot.py   # --help for the rest

LeRobot's robots give observations and take actions as dicts by name: `get_observation()`, `send_action(action)`. The
session's environment names its entries, too, so the loop goes from one to the other by names; a robot that lacks one is
told before it moves. `SimulatedRobot` has that interface over the bundled cheetah; put yours in its place. LeRobot
itself is not needed here, and not imported.
"""

import argparse
from typing import Any, Protocol

import gymnasium
import numpy as np

from mier_client import Client, EnvironmentSpec, Recorder, RemotePolicy, Step

Named = dict[str, float]


class Robot(Protocol):
    """The part of LeRobot's `Robot` that a control loop uses."""

    observation_features: dict[str, type]
    action_features: dict[str, type]

    def connect(self) -> None: ...

    def get_observation(self) -> Named: ...

    def send_action(self, action: Named) -> Named:
        """Moves; what was really done, after the robot's own limits."""

    def disconnect(self) -> None: ...


class SimulatedRobot:
    """The cheetah behind that interface. It also knows its reward, as the lab's own code would."""

    def __init__(self, target: float, names: EnvironmentSpec) -> None:
        self._env: Any = gymnasium.make("mier_envs:mier/CheetahVel-v0", target=target)
        self._names = names
        self.observation_features: dict[str, type] = dict.fromkeys(names.observation_names, float)
        self.action_features: dict[str, type] = dict.fromkeys(names.action_names, float)
        self.reward, self.over = 0.0, False

    def connect(self) -> None:
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Back to where an episode begins, by whatever means a lab has."""
        self._seen, _ = self._env.reset(seed=seed)
        self.over = False

    def get_observation(self) -> Named:
        return dict(zip(self._names.observation_names, map(float, self._seen), strict=True))

    def send_action(self, action: Named) -> Named:
        values = np.clip([action[name] for name in self._names.action_names], -1.0, 1.0).astype(np.float32)
        self._seen, self.reward, terminated, truncated, _ = self._env.step(values)
        self.over = terminated or truncated
        return dict(zip(self._names.action_names, map(float, values), strict=True))

    def disconnect(self) -> None:
        self._env.close()


def check_names(robot: Robot, environment: EnvironmentSpec) -> None:
    """ValueError if the robot lacks something that the checkpoint's environment has."""
    for what, has, needs in (
        ("observations", robot.observation_features, environment.observation_names),
        ("actions", robot.action_features, environment.action_names),
    ):
        if missing := [name for name in needs if name not in has]:
            raise ValueError(f"expected {what} named {', '.join(needs)}; the robot lacks {', '.join(missing)}")


def row(named: Named, names: tuple[str, ...]) -> np.ndarray:
    """In the session's order."""
    return np.array([named[name] for name in names], np.float32)


def main(service: str, target: float, episodes: int) -> None:
    with Client.connect(service) as client:
        session = client.create_session("cheetah-vel-ood")
        names = session.environment
        robot = SimulatedRobot(target, names)
        check_names(robot, names)
        recorder = Recorder(client, session.id)
        robot.connect()
        with RemotePolicy(client, session.id, explore=True) as policy:
            for number in range(episodes):
                robot.reset(number)
                total, seen = 0.0, row(robot.get_observation(), names.observation_names)
                while not robot.over:
                    wanted = policy.act(seen)
                    done = robot.send_action(dict(zip(names.action_names, map(float, wanted), strict=True)))
                    taken = row(done, names.action_names)
                    following = row(robot.get_observation(), names.observation_names)
                    # What the robot's own limits changed was not the policy's choice.
                    version = policy.acted.policy_version if policy.acted and np.array_equal(taken, wanted) else 0
                    recorder.add(Step(seen, taken, robot.reward, following, False, robot.over, version))
                    seen, total = following, total + robot.reward
                policy.reset()
                client.adapt(session.id)
                print(f"episode {number}: return {total:.1f}")
        robot.disconnect()
        client.delete_session(session.id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="grpc://127.0.0.1:50051", help="its URL (default: %(default)s)")
    parser.add_argument("--target", type=float, default=1.5, help="speed in m/s (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=3)
    main(**vars(parser.parse_args()))
