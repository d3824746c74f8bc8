"""A context that follows its task, on a system whose tasks a model knows exactly: linear in the context, with noise."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from mier.adaptation import adapt
from mier.agent import Agent
from mier.change import ChangeWatch, changed, gain_of_two, row_nlls
from mier.config import AdaptConfig, AdaptMethod, Conditioning, Configuration, ModelConfig, SacConfig
from mier.following import Followed, Following, follow
from mier.types import EnvSpec, Transitions

FIRST, SECOND = torch.tensor([0.7, -0.4, 0.2]), torch.tensor([-0.9, 0.8, 0.5])
Make = Callable[[torch.Tensor, int], Transitions]


@pytest.fixture(params=[AdaptMethod.GAUSS_NEWTON, AdaptMethod.CLOSED_FORM])
def agent(request: pytest.FixtureRequest, reward_spec: EnvSpec) -> Agent:
    model = ModelConfig(
        context_dim=3, hidden=(16, 16), conditioning=Conditioning.LINEAR_HEAD, log_var_min=-4.0, log_var_max=-3.9
    )
    adapting = AdaptConfig(method=request.param, min_transitions=20)
    made = Agent.build(reward_spec, Configuration(model=model, adapt=adapting, sac=SacConfig(hidden=(16,))), 4)
    made.training_contexts = torch.randn(4, 3)
    with torch.no_grad():
        made.model.head.weight.mul_(6.0)  # tasks differ by more than their noise
    return made.freeze()


@pytest.fixture
def make(agent: Agent, transitions: Callable[..., Transitions]) -> Make:
    generator = torch.Generator().manual_seed(1)

    def of(context: torch.Tensor, count: int) -> Transitions:
        """Rows whose rewards are the model's own under a context, with the noise that it expects."""
        rows = transitions(agent.spec, count)
        found = agent.model(rows, context)
        drawn = found.mean + torch.exp(0.5 * found.log_var) * torch.randn(found.mean.shape, generator=generator)
        return rows._replace(reward=agent.model.target_norm.inverse(drawn)[..., 0])

    return of


def followed(agent: Agent, rows: Transitions, lot: int, episode: int) -> list[Followed]:
    """Each step of following rows that arrive `lot` at a time; an episode ends every so many."""
    state, start, steps = None, 0, []
    for stop in range(lot, rows.size + 1, lot):
        found = follow(agent, state, rows.rows(slice(start, stop)), episode_ended=stop % episode == 0)
        if found is not None:
            steps.append(found)
            state = found.state
            if found.changed:
                start = stop - state.rows
    return steps


def test_a_calm_task_is_followed_and_found_anew_at_each_episodes_end(agent: Agent, make: Make) -> None:
    rows = make(FIRST, 120)
    steps = followed(agent, rows, 4, 40)
    assert not any(step.changed for step in steps)
    assert [step.state.rows for step in steps] == list(range(20, 121, 4))
    last = adapt(agent.model, rows, agent.configuration.adapt, agent.training_contexts)
    assert steps[-1].adaptation.context.tolist() == last.context.tolist()
    torch.testing.assert_close(torch.from_numpy(last.context), FIRST, atol=0.35, rtol=0.0)
    between = torch.from_numpy(steps[-2].adaptation.context)
    torch.testing.assert_close(between, torch.from_numpy(last.context), atol=0.2, rtol=0.0)


def test_a_change_is_noticed_and_the_window_starts_anew(agent: Agent, make: Make) -> None:
    """Broken on purpose: with the rows of before kept in the window, the context ends between the two tasks."""
    rows = Transitions.concatenate([make(FIRST, 64), make(SECOND, 76)])
    steps = followed(agent, rows, 4, 1000)
    (change,) = [i for i, step in enumerate(steps) if step.changed]
    assert 20 <= steps[change].state.rows <= 32
    torch.testing.assert_close(torch.from_numpy(steps[-1].adaptation.context), SECOND, atol=0.35, rtol=0.0)
    assert steps[-1].state.rows <= 80


def test_a_worse_model_is_not_a_change(agent: Agent, make: Make) -> None:
    """Rows that no context explains raise suspicion, and two contexts explain them no better than one. Broken on
    purpose: with the plain NLL compared, fitting three numbers to the noise is worth many nats, and it is a change."""
    calm, noisy = make(FIRST, 64), make(FIRST, 40)
    noisy = noisy._replace(reward=noisy.reward + 3.0 * torch.randn(40, generator=torch.Generator().manual_seed(2)))
    context = torch.from_numpy(adapt(agent.model, calm, agent.configuration.adapt, agent.training_contexts).context)
    watch = ChangeWatch.of(agent, calm, context).after(row_nlls(agent, noisy, context))
    assert watch.alarmed
    assert watch.since >= 20
    assert gain_of_two(agent, calm, make(SECOND, 40)) > 0.5
    assert not changed(agent, calm, make(FIRST, 40))
    assert not changed(agent, calm, noisy)


def test_suspicion_counts_rows_and_forgives() -> None:
    watch = ChangeWatch(limit=0.0)
    usual, strange = torch.tensor([-1.0]), torch.tensor([1.0])
    for _ in range(3):
        watch = watch.after(strange)
    assert watch.since == 3
    assert watch.evidence == pytest.approx(3 * 1.609, abs=0.01)
    for _ in range(9):
        watch = watch.after(usual)
    assert (watch.evidence, watch.since) == (0.0, 0)
    watch = watch.after(strange.expand(8))
    assert watch.alarmed
    assert watch.after(usual).since == 9  # nothing is counted after an alarm but rows


def test_it_goes_on_from_what_was_written_down(agent: Agent, make: Make) -> None:
    """Broken on purpose: with the information kept as float32, what is read is not what was written."""
    rows = make(FIRST, 60)
    first = follow(agent, None, rows.rows(slice(0, 40)), episode_ended=False)
    assert first is not None
    again = Following.from_json(json.loads(json.dumps(first.state.to_json())))
    assert again.to_json() == first.state.to_json()
    one = follow(agent, first.state, rows, episode_ended=False)
    other = follow(agent, again, rows, episode_ended=False)
    assert one is not None
    assert other is not None
    assert one.adaptation.context.tobytes() == other.adaptation.context.tobytes()
    assert one.state.to_json() == other.state.to_json()


def test_nothing_is_said_of_too_few_transitions_or_of_none_that_are_new(agent: Agent, make: Make) -> None:
    rows = make(FIRST, 24)
    assert follow(agent, None, rows.rows(slice(0, 19)), episode_ended=True) is None
    begun = follow(agent, None, rows, episode_ended=False)
    assert begun is not None
    assert follow(agent, begun.state, rows, episode_ended=True) is None
