"""ROS messages -> an observation vector, entry by entry; an action -> the data of a Float64MultiArray. Knows no ROS:
messages are whatever has their fields.

An entry of the observation is named by where it comes from:

    joint/position/knee          sensor_msgs/JointState, by the joint's name: position, velocity or effort
    imu/orientation/pitch        sensor_msgs/Imu: roll, pitch or yaw of the quaternion, in radians
    imu/angular_velocity/x       any field of the message, step by step
    odometry/twist.twist.linear/x
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SOURCES = ("joint", "imu", "odometry")
_ANGLES = ("roll", "pitch", "yaw")
_JOINT_FIELDS = ("position", "velocity", "effort")


class Unusable(Exception):
    """A message lacks what an entry needs; the message of this says which."""


@dataclass(frozen=True)
class Entry:
    """Where one entry of the observation comes from."""

    source: str
    field: str
    name: str

    @staticmethod
    def parse(text: str) -> Entry:
        """ValueError, with what was expected, if it names nothing."""
        parts = text.split("/")
        if len(parts) != 3 or parts[0] not in SOURCES or not all(parts):
            raise ValueError(f"expected SOURCE/FIELD/NAME with a source of {', '.join(SOURCES)}, got {text!r}")
        entry = Entry(*parts)
        if entry.source == "joint" and entry.field not in _JOINT_FIELDS:
            raise ValueError(f"expected joint/FIELD/NAME with a field of {', '.join(_JOINT_FIELDS)}, got {text!r}")
        return entry

    def read(self, message: Any) -> float:
        """Unusable if the message has it not, or it is not finite."""
        value = self._joint(message) if self.source == "joint" else self._path(message)
        if not math.isfinite(value):
            raise Unusable(f"{self}: expected a finite value, got {value}")
        return value

    def _joint(self, message: Any) -> float:
        values = getattr(message, self.field)
        names = list(message.name)
        if self.name not in names or len(values) != len(names):
            raise Unusable(f"{self}: the message has {len(values)} values of {self.field} for the joints {names}")
        return float(values[names.index(self.name)])

    def _path(self, message: Any) -> float:
        found = message
        try:
            for step in self.field.split("."):
                found = getattr(found, step)
            if self.name in _ANGLES:
                return _angle(found, self.name)
            return float(getattr(found, self.name))
        except AttributeError as error:
            raise Unusable(f"{self}: {error}") from None

    def __str__(self) -> str:
        return f"{self.source}/{self.field}/{self.name}"


class ObservationMap:
    """The observation of the newest messages."""

    def __init__(self, entries: Sequence[str], observation_names: Sequence[str]) -> None:
        """ValueError if they are not one for each of the environment's names."""
        if len(entries) != len(observation_names):
            raise ValueError(
                f"expected an entry for each of {len(observation_names)} observation names "
                f"({', '.join(observation_names)}), got {len(entries)}"
            )
        self.entries = [Entry.parse(text) for text in entries]
        self.sources = sorted({entry.source for entry in self.entries})

    def observation(self, messages: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """[observation_dim], of the newest message of each source."""
        return np.array([entry.read(messages[entry.source]) for entry in self.entries], np.float32)


def command(action: npt.NDArray[np.float32], low: Sequence[float], high: Sequence[float]) -> list[float]:
    """What a Float64MultiArray carries: the action in the environment's order and units, within its bounds."""
    return [float(value) for value in np.clip(action.astype(np.float64), low, high)]


def _angle(q: Any, name: str) -> float:
    """Of a quaternion, in radians; yaw about z, then pitch about y, then roll about x."""
    norm = q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w
    if not norm > 0.0:
        return math.nan
    s = 2.0 / norm
    if name == "roll":
        return math.atan2(s * (q.w * q.x + q.y * q.z), 1.0 - s * (q.x * q.x + q.y * q.y))
    if name == "pitch":
        return math.asin(max(-1.0, min(1.0, s * (q.w * q.y - q.z * q.x))))
    return math.atan2(s * (q.w * q.z + q.x * q.y), 1.0 - s * (q.y * q.y + q.z * q.z))
