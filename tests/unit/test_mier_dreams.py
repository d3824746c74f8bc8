"""Dreamed contexts lie further out in the directions in which training tasks differ; their rewards are the model's."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mier.checkpoint import Checkpoint
from mier.dreams import best_rows, beyond, dreamed_contexts, dreamed_rewards, with_hindsight
from mier.types import Transitions

# Ten tasks on a line through (1, 2, 0), as target speeds are.
LINE = torch.tensor([1.0, 2.0, 0.0]) + torch.linspace(-0.5, 0.5, 10)[:, None] * torch.tensor([1.0, -2.0, 0.1])


def test_dreams_stay_on_the_line_and_reach_as_far_as_asked() -> None:
    drawn = dreamed_contexts(LINE, 4000, 6.0, torch.Generator().manual_seed(0))
    middle = LINE.mean(0)
    along = ((drawn - middle) / torch.tensor([1.0, -2.0, 0.1])).mean(-1)
    torch.testing.assert_close(drawn, middle + along[:, None] * torch.tensor([1.0, -2.0, 0.1]))
    spread = LINE.std(0, correction=0)
    score = ((drawn - middle) / spread).square().mean(-1).sqrt()
    assert 5.9 < score.max() <= 6.0001
    # Uniform in distance, and on both sides alike.
    torch.testing.assert_close(score.mean(), torch.tensor(3.0), atol=0.1, rtol=0.0)
    torch.testing.assert_close(along.sign().mean(), torch.tensor(0.0), atol=0.06, rtol=0.0)


def test_dreams_are_a_function_of_the_generator() -> None:
    first, again, other = (dreamed_contexts(LINE, 5, 6.0, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_tasks_that_are_all_alike_dream_of_themselves() -> None:
    same = torch.ones(4, 3)
    torch.testing.assert_close(dreamed_contexts(same, 7, 6.0, torch.Generator()), torch.ones(7, 3))


def test_dreamed_rewards_are_the_models_under_each_rows_own_context(
    reward_checkpoint: Checkpoint, transitions: Callable[..., Transitions]
) -> None:
    model, flat = reward_checkpoint.agent.model, transitions(reward_checkpoint.spec, 12)
    rows = Transitions(*(field.view(3, 4, *field.shape[1:]) for field in flat))
    contexts = torch.randn(3, 4)
    found = dreamed_rewards(model, contexts, rows)
    for i in range(3):
        expected = model.target_norm.inverse(model(rows.rows(torch.tensor(i)), contexts[i]).mean)[..., 0]
        torch.testing.assert_close(found.reward[i], expected)
    assert torch.equal(found.next_observation, rows.next_observation)


def test_best_rows_are_the_best_of_each_task_and_whole() -> None:
    reward = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, -1.0, 6.0]])
    numbered = torch.arange(8.0).view(2, 4)
    wide = numbered[..., None].expand(2, 4, 3)
    found = best_rows(Transitions(wide, wide, reward, wide, numbered), 2)
    assert found.reward.tolist() == [[3.0, 2.0], [6.0, 5.0]]
    assert found.terminated.tolist() == [[0.0, 2.0], [7.0, 5.0]]
    for field in (found.observation, found.action, found.next_observation):
        assert field[..., 0].tolist() == [[0.0, 2.0], [7.0, 5.0]]


def test_beyond_is_further_out_than_any_known_task() -> None:
    step = torch.tensor([1.0, -2.0, 0.1])
    out = LINE.mean(0) + torch.tensor([[-0.51], [-0.49], [0.0], [0.49], [0.51]]) * step
    assert beyond(out, LINE).tolist() == [True, False, False, False, True]


def test_hindsight_is_for_tasks_beyond_the_known_ones() -> None:
    """The first task is a known one: its rows stay; half of the second's make way for the best of more."""
    contexts = torch.stack([LINE[3], LINE.mean(0) + 3.0 * torch.tensor([1.0, -2.0, 0.1])])

    def numbered(reward: torch.Tensor) -> Transitions:
        wide = reward[..., None].expand(*reward.shape, 3)
        return Transitions(wide, wide, reward, wide, reward)

    rows = numbered(torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]))
    more = numbered(torch.tensor([[10.0, 90.0, 50.0], [20.0, 30.0, 80.0]]))
    found = with_hindsight(contexts, LINE, rows, more)
    for field in (found.reward, found.terminated, found.observation[..., 0], found.action[..., 2]):
        assert field.tolist() == [[0.0, 1.0, 2.0, 3.0], [6.0, 7.0, 80.0, 30.0]]
