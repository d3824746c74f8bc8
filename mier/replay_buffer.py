"""Per-task replay: one ring of transitions per task, sampled many tasks at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from mier.types import EnvSpec, Transitions


class ReplayBuffer:
    """Rings of `capacity` transitions for each of `tasks` tasks; the oldest is overwritten first.

    Invariants: row [t, i] is valid for i < count[t]; count and head are bookkeeping on the CPU, rows on `device`.
    """

    def __init__(self, spec: EnvSpec, tasks: int, capacity: int, device: torch.device | None = None) -> None:
        self.capacity = capacity
        self.head = torch.zeros(tasks, dtype=torch.int64)
        self.count = torch.zeros(tasks, dtype=torch.int64)
        wide = {
            "observation": spec.observation_dim,
            "action": spec.action_dim,
            "next_observation": spec.observation_dim,
        }
        self.rows = Transitions(
            *(
                torch.zeros((tasks, capacity, wide[name]) if name in wide else (tasks, capacity), device=device)
                for name in Transitions._fields
            )
        )

    @property
    def filled_tasks(self) -> Tensor:
        """Indices of tasks that hold at least one transition."""
        return self.count.nonzero().squeeze(-1)

    def add(self, task: int, transitions: Transitions) -> None:
        """Append rows [n, dim] to a task's ring."""
        n = transitions.size
        if n > self.capacity:
            raise ValueError(f"a ring of {self.capacity} transitions cannot take {n} at once")
        at = (self.head[task] + torch.arange(n)) % self.capacity
        for ring, rows in zip(self.rows, transitions, strict=True):
            ring[task, at.to(ring.device)] = rows.to(ring.device)
        self.head[task] = (self.head[task] + n) % self.capacity
        self.count[task] = torch.clamp(self.count[task] + n, max=self.capacity)

    def sample(self, tasks: Tensor, rows: int, generator: torch.Generator) -> Transitions:
        """[tasks, rows, dim]: uniformly, with replacement, from each of the given tasks (which must hold data)."""
        if (self.count[tasks] == 0).any():
            raise ValueError(f"tasks without data cannot be sampled: {tasks[self.count[tasks] == 0].tolist()}")
        pick = torch.rand(len(tasks), rows, generator=generator) * self.count[tasks][:, None]
        index = (tasks[:, None] * self.capacity + pick.long()).flatten()
        flat = index.to(self.rows.reward.device)
        return Transitions(
            *(ring.flatten(0, 1).index_select(0, flat).unflatten(0, (len(tasks), rows)) for ring in self.rows)
        )

    def contents(self, task: int) -> Transitions:
        """All of a task's rows, oldest first."""
        count, head = int(self.count[task]), int(self.head[task])
        order = (head - count + torch.arange(count)) % self.capacity
        return Transitions(*(ring[task, order.to(ring.device)] for ring in self.rows))

    def state_dict(self) -> dict[str, Tensor]:
        """Only what is filled, packed; small early in a run."""
        width = int(self.count.max()) if len(self.count) else 0
        packed = {name: ring[:, :width].clone() for name, ring in zip(Transitions._fields, self.rows, strict=True)}
        return packed | {"head": self.head.clone(), "count": self.count.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.head.copy_(state["head"])
        self.count.copy_(state["count"])
        for name, ring in zip(Transitions._fields, self.rows, strict=True):
            ring[:, : state[name].shape[1]] = state[name].to(ring.device)
