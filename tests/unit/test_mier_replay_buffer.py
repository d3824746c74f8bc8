"""Per-task rings: order, overwriting, sampling of filled rows only, state."""

from __future__ import annotations

import pytest
import torch

from mier.replay_buffer import ReplayBuffer
from mier.serialization import pack, same, unpack
from mier.types import EnvSpec, Transitions


def numbered(spec: EnvSpec, first: int, n: int) -> Transitions:
    """Rows whose every entry is their number."""
    number = torch.arange(first, first + n).float()
    wide = number[:, None]
    return Transitions(
        wide.expand(n, spec.observation_dim),
        wide.expand(n, spec.action_dim),
        number,
        wide.expand(n, 3) + 0.5,
        number % 2,
    )


def test_the_oldest_rows_go_first(reward_spec: EnvSpec) -> None:
    ring = ReplayBuffer(reward_spec, tasks=2, capacity=7)
    seen: list[float] = []
    for n in (3, 3, 4, 7, 1, 2):
        ring.add(1, numbered(reward_spec, len(seen), n))
        seen += range(len(seen), len(seen) + n)
        held = ring.contents(1)
        assert held.reward.tolist() == seen[-7:]
        assert held.observation[:, 2].tolist() == seen[-7:]
        assert held.next_observation[:, 0].tolist() == [x + 0.5 for x in seen[-7:]]
        assert held.terminated.tolist() == [x % 2 for x in seen[-7:]]
    assert ring.contents(0).size == 0
    assert ring.filled_tasks.tolist() == [1]


def test_more_than_a_ring_holds_is_refused(reward_spec: EnvSpec) -> None:
    ring = ReplayBuffer(reward_spec, tasks=1, capacity=7)
    with pytest.raises(ValueError, match="a ring of 7 transitions cannot take 8 at once"):
        ring.add(0, numbered(reward_spec, 0, 8))


def test_samples_are_filled_rows_of_the_asked_tasks(reward_spec: EnvSpec) -> None:
    ring = ReplayBuffer(reward_spec, tasks=3, capacity=50)
    ring.add(0, numbered(reward_spec, 1, 3))
    ring.add(2, numbered(reward_spec, 100, 50))
    ring.add(2, numbered(reward_spec, 150, 20))
    drawn = ring.sample(torch.tensor([2, 0, 2]), 2000, torch.Generator().manual_seed(0))
    assert drawn.observation.shape == (3, 2000, 3)
    assert drawn.reward.shape == (3, 2000)
    assert set(drawn.reward[1].tolist()) == {1.0, 2.0, 3.0}  # not the zeros of unfilled rows
    assert set(drawn.reward[0].tolist()) == set(range(120, 170))
    assert torch.equal(drawn.observation[..., 0], drawn.reward)
    assert torch.equal(drawn.action[..., 1], drawn.reward)
    assert not torch.equal(drawn.reward[0], drawn.reward[2])
    counts = torch.bincount(drawn.reward[1].long())[1:]
    assert (counts.float() / 2000 - 1 / 3).abs().max() < 0.05


def test_sampling_repeats_with_its_generator(reward_spec: EnvSpec) -> None:
    ring = ReplayBuffer(reward_spec, tasks=1, capacity=50)
    ring.add(0, numbered(reward_spec, 0, 50))
    one, two = (ring.sample(torch.tensor([0]), 9, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one.reward, two.reward)


def test_a_task_without_data_is_named(reward_spec: EnvSpec) -> None:
    ring = ReplayBuffer(reward_spec, tasks=3, capacity=5)
    ring.add(1, numbered(reward_spec, 0, 2))
    with pytest.raises(ValueError, match=r"without data cannot be sampled: \[0, 2\]"):
        ring.sample(torch.tensor([0, 1, 2]), 4, torch.Generator())


@pytest.mark.parametrize("filled", [0, 4, 7, 11])
def test_state_survives_and_the_ring_goes_on(reward_spec: EnvSpec, filled: int) -> None:
    ring, again = (ReplayBuffer(reward_spec, tasks=2, capacity=7) for _ in range(2))
    for at in range(filled):
        ring.add(1, numbered(reward_spec, at, 1))
    state = unpack(pack(ring.state_dict()))
    again.load_state_dict(state)
    assert same(again.state_dict(), ring.state_dict())
    for one in (ring, again):
        one.add(1, numbered(reward_spec, 50, 5))
        one.add(0, numbered(reward_spec, 60, 2))
    for task in range(2):
        assert same(again.contents(task)._asdict(), ring.contents(task)._asdict())
    draws = [one.sample(torch.tensor([0, 1]), 30, torch.Generator().manual_seed(1)) for one in (ring, again)]
    assert torch.equal(draws[0].reward, draws[1].reward)


def test_a_state_holds_no_more_than_what_is_filled(reward_spec: EnvSpec) -> None:
    ring = ReplayBuffer(reward_spec, tasks=2, capacity=1000)
    ring.add(1, numbered(reward_spec, 0, 3))
    state = ring.state_dict()
    assert state["observation"].shape == (2, 3, 3)
    ring.add(1, numbered(reward_spec, 50, 3))
    assert state["reward"][1].tolist() == [0.0, 1.0, 2.0]  # a copy
