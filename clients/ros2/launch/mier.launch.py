"""ros2 launch mier_ros2 mier.launch.py params:=/path/to/params.yaml"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    default = PathJoinSubstitution([FindPackageShare("mier_ros2"), "config", "cheetah.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("params", default_value=default, description="Parameters of the node (YAML)."),
            Node(
                package="mier_ros2",
                executable="mier_node",
                name="mier",
                output="screen",
                parameters=[LaunchConfiguration("params")],
            ),
        ]
    )
