"""The node: ROS's topics, timers and services around `Loop` and `Learner`. What decides is there; this is the wiring.

~/begin_episode  (std_srvs/Trigger)   what comes next is a new episode, also after a fall
"""

from __future__ import annotations

import functools
from typing import Any

import rclpy
from nav_msgs.msg import Odometry
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64, Float64MultiArray
from std_srvs.srv import Trigger

from mier_client import Acted, Client
from mier_ros2.learner import Learner
from mier_ros2.loop import FloatArray, Loop, WithoutAction
from mier_ros2.mapping import ObservationMap

_DEFAULTS: dict[str, Any] = {
    "service_url": "grpc://127.0.0.1:50051",
    "checkpoint": "",
    "session": "",
    "observation": [""],
    "joint_states_topic": "joint_states",
    "imu_topic": "imu",
    "odometry_topic": "odom",
    "reward_topic": "reward",
    "command_topic": "forward_command_controller/commands",
    "without_action": "hold",
    "max_input_age_s": 0.2,
    "act_timeout_s": 0.05,
    "explore": True,
    "adapt_every_episodes": 1,
}
_LEARN_EVERY_S = 0.5
_TROUBLE_EVERY_S = 1.0


class MierNode(Node):  # type: ignore[misc]  # ROS brings no types
    """One robot."""

    def __init__(self) -> None:
        super().__init__("mier")
        for name, value in _DEFAULTS.items():
            self.declare_parameter(name, value)
        self._client = Client.connect(self._value("service_url"))
        session_id, checkpoint = self._value("session"), self._value("checkpoint")
        session = self._client.get_session(session_id) if session_id else self._client.create_session(checkpoint)
        mapping = ObservationMap(self._value("observation"), session.environment.observation_names)
        episode = max((run.episode + 1 for run in self._client.list_transitions(session.id)), default=0)
        self._session_id = session.id
        self._stream = self._client.open_act_stream()
        self._acting = self._stream.__enter__()
        every = int(self._value("adapt_every_episodes"))
        self._learner = Learner(self._client, session.id, episode, every, self.get_logger().info)
        self._loop = Loop(
            session.environment,
            mapping,
            self._act,
            self._learner.add,
            self._learner.end_episode,
            WithoutAction(self._value("without_action")),
            self._value("max_input_age_s"),
            episode,
        )
        self._wire(session.environment.dt_s)
        self.get_logger().info(f"session {session.id} on {session.checkpoint}, from episode {episode} on")

    def _wire(self, period_s: float) -> None:
        control, learning = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        sources = {
            "joint": (JointState, "joint_states_topic"),
            "imu": (Imu, "imu_topic"),
            "odometry": (Odometry, "odometry_topic"),
        }
        for source, (kind, topic) in sources.items():
            take = functools.partial(self._take, source)
            self.create_subscription(kind, self._value(topic), take, qos_profile_sensor_data, callback_group=control)
        if self._value("reward_topic"):
            self.create_subscription(
                Float64, self._value("reward_topic"), self._reward, qos_profile_sensor_data, callback_group=control
            )
        self._commands = self.create_publisher(Float64MultiArray, self._value("command_topic"), 1)
        self.create_service(Trigger, "~/begin_episode", self._begin_episode, callback_group=control)
        self.create_timer(period_s, self._tick, callback_group=control)
        self.create_timer(_LEARN_EVERY_S, self._learner.work, callback_group=learning)

    def close(self) -> None:
        """Submits what is left."""
        self._stream.__exit__(None, None, None)
        self._learner.close()
        self._client.close()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _now_s(self) -> float:
        return float(self.get_clock().now().nanoseconds / 1e9)

    def _take(self, source: str, message: Any) -> None:
        self._loop.inputs.take(source, message, self._now_s())

    def _reward(self, message: Float64) -> None:
        self._loop.reward(float(message.data))

    def _act(self, observation: FloatArray, episode: int, step: int) -> Acted:
        return self._acting.act(
            self._session_id,
            observation,
            deterministic=not self._value("explore"),
            episode=episode,
            step=step,
            timeout_s=self._value("act_timeout_s"),
        )

    def _tick(self) -> None:
        tick = self._loop.tick(self._now_s())
        if tick.command is not None:
            self._commands.publish(Float64MultiArray(data=tick.command))
        if tick.trouble:
            self.get_logger().warning(tick.trouble, throttle_duration_sec=_TROUBLE_EVERY_S)

    def _begin_episode(self, request: Any, response: Any) -> Any:
        self._loop.begin_episode()
        response.success, response.message = True, f"episode {self._loop.episode}"
        return response


def main() -> None:
    """The executable `mier_node`."""
    rclpy.init()
    node = MierNode()
    executor = MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
