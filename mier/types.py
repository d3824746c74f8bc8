"""What the core talks about: the controlled system's spec and batches of transitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from mier import json_values


class Varies(StrEnum):
    """What differs between the tasks of a family; the model predicts just that."""

    REWARD = "reward"
    """Dynamics are shared: the model predicts the reward only (paper, appendix A)."""
    DYNAMICS = "dynamics"
    """The model predicts reward and next state."""


@dataclass(frozen=True)
class HealthyRange:
    """The environment's termination rule for one observation entry: outside [low, high] is a fall."""

    index: int
    low: float
    high: float


@dataclass(frozen=True)
class EnvSpec:
    """The system that a checkpoint was trained for: sizes, order, bounds and control period."""

    id: str
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    dt_s: float
    """Seconds between two control steps."""
    horizon_steps: int
    """Episode length; reaching it is a truncation, never a termination."""
    varies: Varies
    healthy_ranges: tuple[HealthyRange, ...] = ()
    action_max_change: tuple[float, ...] = ()
    """Largest change of each action entry from one step to the next, environment units; empty: not limited. Who sends
    actions keeps to it (service, edge); the policy does not know it."""

    def __post_init__(self) -> None:
        if not len(self.action_names) == len(self.action_low) == len(self.action_high):
            raise ValueError(
                f"spec {self.id}: {len(self.action_names)} action names need as many bounds, "
                f"came {len(self.action_low)} low and {len(self.action_high)} high"
            )
        if any(low >= high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise ValueError(f"spec {self.id}: every action_low must be below its action_high")
        if self.action_max_change and (
            len(self.action_max_change) != len(self.action_names) or min(self.action_max_change) <= 0.0
        ):
            raise ValueError(
                f"spec {self.id}: {len(self.action_names)} actions need as many largest changes above 0, or none, "
                f"came {self.action_max_change}"
            )
        if not (self.observation_names and self.action_names):
            raise ValueError(f"spec {self.id}: expected at least one observation and one action, came none")
        if self.dt_s <= 0.0 or self.horizon_steps < 1:
            raise ValueError(f"spec {self.id}: dt_s and horizon_steps must be above 0")
        if odd := [r.index for r in self.healthy_ranges if not 0 <= r.index < len(self.observation_names)]:
            raise ValueError(f"spec {self.id}: healthy ranges are of observation entries, came indices {odd}")

    @property
    def observation_dim(self) -> int:
        return len(self.observation_names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        if not self.action_max_change:
            del value["action_max_change"]  # manifests without it stay as they always were
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; ValueError names an unknown key, or one whose value is of another type."""
        return json_values.from_json(cls, value)

    def to_unit_action(self, action: Tensor) -> Tensor:
        """[..., action_dim] in environment units -> the same action in [-1, 1], which the networks see."""
        middle, half = self._middle_and_half(action)
        return (action - middle) / half

    def from_unit_action(self, action: Tensor) -> Tensor:
        """[..., action_dim] in [-1, 1] -> environment units."""
        # Bounds that are symmetric keep an action's sign exact: what is the other way round is exactly so.
        middle, half = self._middle_and_half(action)
        low, high = self._bounds(action)
        # Rounding may overshoot a bound by one unit in the last place, which a robot's own check would refuse.
        return (middle + half * action).clamp(low, high)

    def terminated(self, observation: Tensor) -> Tensor:
        """[..., observation_dim] -> [...] 1.0 where the environment's rule calls the state a fall."""
        fallen = torch.zeros(observation.shape[:-1], dtype=torch.bool, device=observation.device)
        for r in self.healthy_ranges:
            entry = observation[..., r.index]
            fallen |= ~((entry >= r.low) & (entry <= r.high))
        return fallen.to(observation.dtype)

    def _middle_and_half(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self._bounds(like)
        return 0.5 * (low + high), 0.5 * (high - low)

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.action_low), like.new_tensor(self.action_high)


class Transitions(NamedTuple):
    """A batch of transitions, float32; the leading axes are shared by all fields.

    Actions are in environment units at the package's doors; the networks see them in [-1, 1].
    """

    observation: Tensor
    """[..., observation_dim]"""
    action: Tensor
    """[..., action_dim]"""
    reward: Tensor
    """[...]"""
    next_observation: Tensor
    """[..., observation_dim]"""
    terminated: Tensor
    """[...] 1.0 where the task ended there; 0.0 also where time ran out."""

    @property
    def size(self) -> int:
        """Number of transitions."""
        return self.reward.numel()

    def rows(self, index: Tensor | slice | int) -> Transitions:
        """The transitions at `index` of the first axis."""
        return Transitions(*(field[index] for field in self))

    def to(self, device: torch.device) -> Transitions:
        return Transitions(*(field.to(device) for field in self))

    @staticmethod
    def concatenate(batches: Sequence[Transitions]) -> Transitions:
        """Along the first axis."""
        return Transitions(*(torch.cat(fields) for fields in zip(*batches, strict=True)))
