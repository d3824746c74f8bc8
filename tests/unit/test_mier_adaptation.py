"""Each adaptation recovers a known context; Gauss-Newton never gets worse; the closed form is Bayesian regression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mier.adaptation import (
    InsufficientData,
    adapt,
    adapt_many,
    closed_form_posterior,
    gauss_newton_context,
    gradient_context,
    infer_context,
    nll,
    split_holdout,
)
from mier.checkpoint import Checkpoint
from mier.config import AdaptConfig, AdaptMethod, Conditioning, ModelConfig
from mier.networks import DynamicsModel
from mier.types import EnvSpec, Transitions, Varies

CONCAT = ModelConfig(context_dim=3, hidden=(24, 24))
FILM_GATE = ModelConfig(context_dim=4, hidden=(24, 24), conditioning=Conditioning.FILM, action_gate=True)
LINEAR_HEAD = ModelConfig(
    context_dim=3, hidden=(24, 24), conditioning=Conditioning.LINEAR_HEAD, next_observation_input=True
)


def known_model(
    spec: EnvSpec, config: ModelConfig, adapt_config: AdaptConfig, raw_log_var: float = -1.0
) -> DynamicsModel:
    """Float64, with a variance that does not depend on the context: the true context is then the best one."""
    model = DynamicsModel(spec, config, adapt_config).double()
    rows = slice(model.target_dim, 2 * model.target_dim)
    with torch.no_grad():
        model.head.weight[rows] = 0.0
        model.head.bias[rows] = raw_log_var
        model.head.weight *= 4.0
        for layer in model.context_layers:
            for parameter in layer.parameters():
                parameter.normal_(std=0.3)
        model.prior_context.normal_(std=0.1)
        model.target_norm.mean.fill_(0.3)
        model.target_norm.std.fill_(1.7)
    return model.requires_grad_(False)


def family_data(model: DynamicsModel, context: Tensor, rows: int, noise: float = 0.0) -> Transitions:
    """Transitions [tasks, rows, dim] that the model itself generates under true contexts [tasks, context_dim]."""
    spec, tasks = model.spec, len(context)
    observation = torch.randn(tasks, rows, spec.observation_dim, dtype=torch.float64)
    action = spec.from_unit_action(2.0 * torch.rand(tasks, rows, spec.action_dim, dtype=torch.float64) - 1.0)
    following = torch.randn_like(observation)
    reward = torch.zeros(tasks, rows, dtype=torch.float64)
    data = Transitions(observation, action, reward, following, torch.zeros_like(reward))
    mean = model(data, context).mean
    target = model.target_norm.inverse(mean + noise * torch.randn_like(mean))
    if spec.varies is Varies.DYNAMICS:
        data = data._replace(next_observation=observation + target[..., 1:])
    return data._replace(reward=target[..., 0])


def prediction_error(model: DynamicsModel, data: Transitions, context: Tensor) -> float:
    """Root mean square error of the mean, in normalised units."""
    error: Tensor = model(data, context).mean - model.target(data)
    return error.square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("model_config", "dynamics"),
    [(CONCAT, False), (CONCAT, True), (FILM_GATE, True)],
    ids=["concat-reward", "concat-dynamics", "film-gate"],
)
def test_gradient_steps_recover_the_context(
    reward_spec: EnvSpec, dynamics_spec: EnvSpec, model_config: ModelConfig, dynamics: bool
) -> None:
    config = AdaptConfig(steps=400, learning_rate=1.0, later_steps=20)
    model = known_model(dynamics_spec if dynamics else reward_spec, model_config, config, raw_log_var=3.0)
    true = model.prior_context + 0.4 * torch.randn(2, model_config.context_dim, dtype=torch.float64)
    fit, fresh = family_data(model, true, 200), family_data(model, true, 200)
    found = infer_context(model, fit, config, later_steps=config.later_steps)
    assert prediction_error(model, fresh, found) < 0.15 * prediction_error(model, fresh, model.prior_context)


@pytest.mark.parametrize("model_config", [CONCAT, FILM_GATE], ids=["concat", "film-gate"])
def test_gauss_newton_recovers_the_context(dynamics_spec: EnvSpec, model_config: ModelConfig) -> None:
    config = AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, gauss_newton_steps=15, damping=1e-6)
    model = known_model(dynamics_spec, model_config, config)
    true = model.prior_context + 0.4 * torch.randn(3, model_config.context_dim, dtype=torch.float64)
    found = infer_context(model, family_data(model, true, 100), config)
    torch.testing.assert_close(found, true, atol=1e-4, rtol=0.0)


def test_closed_form_recovers_the_context(reward_spec: EnvSpec) -> None:
    config = AdaptConfig(method=AdaptMethod.CLOSED_FORM)
    model = known_model(reward_spec, LINEAR_HEAD, config)
    true = model.prior_context + torch.randn(3, 3, dtype=torch.float64)
    # The prior N(prior_context, I) shrinks the estimate; with many rows by next to nothing.
    found = infer_context(model, family_data(model, true, 20_000), config)
    torch.testing.assert_close(found, true, atol=2e-3, rtol=0.0)


def test_closed_form_equals_numpy_bayesian_regression(reward_spec: EnvSpec) -> None:
    config = AdaptConfig(method=AdaptMethod.CLOSED_FORM)
    model = known_model(reward_spec, LINEAR_HEAD, config)
    with torch.no_grad():
        model.head.weight[1:2].normal_()  # a variance that differs from row to row
        model.prior_context.copy_(torch.tensor([0.5, -1.0, 0.2]))
    data = family_data(model, torch.randn(2, 3, dtype=torch.float64), 30, noise=0.3)
    posterior = closed_form_posterior(model, data)
    head = model.linear_head(data)
    prior = np.array([0.5, -1.0, 0.2])
    for task in range(2):
        features = head.features[task].numpy().reshape(-1, 3)
        variance = np.exp(head.log_var[task].numpy().reshape(-1))
        residual = (model.target(data)[task] - head.offset[task]).numpy().reshape(-1)
        # Row by row, as a Kalman filter would: another road to the same posterior.
        mean, covariance = prior.copy(), np.eye(3)
        for phi, v, y in zip(features, variance, residual, strict=True):
            gain = covariance @ phi / (phi @ covariance @ phi + v)
            mean = mean + gain * (y - phi @ mean)
            covariance = covariance - np.outer(gain, phi) @ covariance
        np.testing.assert_allclose(posterior.mean[task].numpy(), mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.linalg.inv(posterior.precision[task].numpy()), covariance, rtol=1e-6, atol=1e-12)


def test_closed_form_is_what_gauss_newton_finds_on_a_linear_head(reward_spec: EnvSpec) -> None:
    config = AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, gauss_newton_steps=25, damping=1.0)
    model = known_model(reward_spec, LINEAR_HEAD, config)
    # Noise within what the model predicts: beyond that Gauss-Newton fits the noise's scale as well.
    data = family_data(model, torch.randn(2, 3, dtype=torch.float64), 20, noise=0.01)
    torch.testing.assert_close(
        gauss_newton_context(model, data, config), closed_form_posterior(model, data).mean, atol=1e-7, rtol=0.0
    )


@pytest.mark.parametrize("model_config", [CONCAT, FILM_GATE], ids=["concat", "film-gate"])
def test_gauss_newton_never_increases_the_objective(dynamics_spec: EnvSpec, model_config: ModelConfig) -> None:
    model = DynamicsModel(dynamics_spec, model_config, AdaptConfig()).double().requires_grad_(False)
    for layer in model.context_layers:
        torch.nn.init.normal_(next(layer.parameters()))  # far from linear in the context
    rows = 25
    data = family_data(model, 2.0 * torch.randn(30, model_config.context_dim, dtype=torch.float64), rows, noise=0.3)

    weights = model.target_weights.double()
    variance = model(data, model.prior_context.expand(30, -1)).log_var.exp()

    def objective(context: Tensor) -> Tensor:
        squares = ((model.target(data) - model(data, context).mean).square() / variance * weights).sum(-1).mean(-1)
        misfit = squares / weights.sum()
        fit = rows * weights.sum() * torch.where(misfit > 1.0, 1.0 + misfit.log(), misfit)
        return 0.5 * (fit + 0.3 * (context - model.prior_context).square().sum(-1))

    previous = objective(model.prior_context.expand(30, -1))
    first = previous
    for steps in range(1, 8):
        config = AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, gauss_newton_steps=steps, damping=0.3)
        current = objective(gauss_newton_context(model, data, config))
        assert (current <= previous + 1e-9).all()
        previous = current
    assert (previous < first - 1e-3).float().mean() > 0.5  # and it does move


def test_more_starts_find_what_one_start_misses(reward_spec: EnvSpec) -> None:
    one = AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, damping=1e-4)
    model = known_model(reward_spec, CONCAT, one)
    for layer in model.context_layers:
        torch.nn.init.normal_(next(layer.parameters()), std=1.5)  # far from linear: more than one minimum
    known = model.prior_context + torch.randn(40, 3, dtype=torch.float64)
    # Further out than any known context.
    true = model.prior_context + 1.8 * (known[:25] - model.prior_context)
    fit, fresh = family_data(model, true, 100), family_data(model, true, 100)

    def missed(config: AdaptConfig) -> int:
        found = gauss_newton_context(model, fit, config, known)
        error = (model(fresh, found).mean - model.target(fresh)).square().mean((-2, -1)).sqrt()
        return int((error > 0.05).sum())

    assert missed(replace(one, starts=8)) < missed(one)


def test_a_context_explains_the_data_and_does_not_call_them_noise(reward_spec: EnvSpec) -> None:
    config = AdaptConfig(method=AdaptMethod.GAUSS_NEWTON, damping=1e-6)
    model = known_model(reward_spec, CONCAT, config, raw_log_var=-3.0)
    with torch.no_grad():
        # Hidden units that see the context alone raise the variance without bound: on the NLL, a way out.
        model.head.weight[1].normal_(std=2.0)
    data = family_data(model, model.prior_context + torch.randn(10, 3, dtype=torch.float64), 60, noise=0.02)
    data = data._replace(reward=data.reward + 5.0)  # beyond what any context explains well
    found = gauss_newton_context(model, data, config)
    squares = [(model(data, z).mean - model.target(data)).square().mean((-2, -1)) for z in (found, model.prior_context)]
    assert (squares[0] <= 1.05 * squares[1]).all()


@pytest.mark.parametrize("method", list(AdaptMethod))
def test_tasks_side_by_side_adapt_as_they_do_alone(
    reward_spec: EnvSpec, dynamics_spec: EnvSpec, method: AdaptMethod
) -> None:
    closed = method is AdaptMethod.CLOSED_FORM
    config = AdaptConfig(method=method, gauss_newton_steps=4)
    model = known_model(reward_spec if closed else dynamics_spec, LINEAR_HEAD if closed else FILM_GATE, config)
    dim = model.config.context_dim
    data = family_data(model, torch.randn(3, dim, dtype=torch.float64), 30, noise=0.2)
    together = infer_context(model, data, config, later_steps=3)
    alone = torch.stack(
        [infer_context(model, Transitions(*(f[i] for f in data)), config, later_steps=3) for i in range(3)]
    )
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=0.0)


def test_the_rate_does_not_depend_on_the_number_of_rows(reward_spec: EnvSpec) -> None:
    config = AdaptConfig()
    model = known_model(reward_spec, CONCAT, config)
    once = family_data(model, torch.randn(1, 3, dtype=torch.float64), 20)
    twice = Transitions(*(torch.cat([f, f], 1) for f in once))
    torch.testing.assert_close(infer_context(model, once, config), infer_context(model, twice, config))


def test_a_clipped_step_is_as_long_as_rate_times_clip(reward_spec: EnvSpec) -> None:
    config = AdaptConfig(steps=1, learning_rate=0.5, gradient_clip=1e-3)
    model = known_model(reward_spec, CONCAT, config)
    data = family_data(model, torch.randn(4, 3, dtype=torch.float64), 20)
    step = gradient_context(model, data, config, create_graph=False) - model.prior_context
    torch.testing.assert_close(step.norm(dim=-1), torch.full((4,), 0.5e-3, dtype=torch.float64))


def test_steps_have_rates_of_their_own_and_later_ones_a_tenth_of_the_last(reward_spec: EnvSpec) -> None:
    config = AdaptConfig(steps=2, learned_rate=True, gradient_clip=1e6)
    model = known_model(reward_spec, CONCAT, config, raw_log_var=3.0)
    with torch.no_grad():
        model.inner_log_rate.copy_(torch.tensor([[0.1, 0.2, 0.3], [0.01, 0.02, 0.04]]).log())
    data = Transitions(*(f[0] for f in family_data(model, torch.randn(1, 3, dtype=torch.float64), 20)))
    context = model.prior_context.clone()
    for rate in ([0.1, 0.2, 0.3], [0.01, 0.02, 0.04], [0.001, 0.002, 0.004]):
        context.requires_grad_()
        (gradient,) = torch.autograd.grad(nll(model, data, context), context)
        context = context.detach() - torch.tensor(rate) * gradient
    found = gradient_context(model, data, config, create_graph=False, later_steps=1)
    torch.testing.assert_close(found, context, atol=1e-8, rtol=1e-6)


def test_the_reward_weighs_as_much_as_the_whole_state(dynamics_spec: EnvSpec) -> None:
    model = known_model(dynamics_spec, CONCAT, AdaptConfig())
    data = Transitions(*(f[0] for f in family_data(model, torch.randn(1, 3, dtype=torch.float64), 7, noise=1.0)))
    prediction = model(data, model.prior_context)
    each = -torch.distributions.Normal(prediction.mean, (0.5 * prediction.log_var).exp()).log_prob(model.target(data))
    expected = each[:, 0].mean() + each[:, 1:].mean()
    torch.testing.assert_close(nll(model, data, model.prior_context), expected)


# The door that sessions use: float32, hold-out, score.


Door = tuple[DynamicsModel, Transitions, AdaptConfig]


@pytest.fixture
def door(reward_spec: EnvSpec, transitions: Callable[..., Transitions]) -> Door:
    config = AdaptConfig(method=AdaptMethod.CLOSED_FORM, min_transitions=20)
    return DynamicsModel(reward_spec, LINEAR_HEAD, config), transitions(reward_spec, 50), config


def test_adapt_reports_what_it_did(door: Door) -> None:
    model, rows, config = door
    known = torch.tensor([[0.0, 1.0, 2.0], [2.0, 5.0, 4.0]])
    found = adapt(model, rows, config, known)
    fit, held = split_holdout(rows, config.holdout_fraction)
    expected = closed_form_posterior(model, fit).mean.detach()
    np.testing.assert_array_equal(found.context, expected.numpy())
    assert found.context.dtype == np.float32
    assert found.nll_before == nll(model, held, model.prior_context).item()
    assert found.nll_after == nll(model, held, expected).item()
    assert found.transitions_used == 50
    z = (expected - torch.tensor([1.0, 3.0, 3.0])) / torch.tensor([1.0, 2.0, 1.0])
    assert found.ood_score == pytest.approx(z.square().mean().sqrt().item())
    # An entry in which no training task differs counts in thousandths.
    constant = adapt(model, rows, config, torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 4.0]]))
    z = (expected - torch.tensor([1.0, 1.0, 3.0])) / torch.tensor([1.0, 1e-3, 1.0])
    assert constant.ood_score == pytest.approx(z.square().mean().sqrt().item())


def test_adapting_twice_finds_the_same(door: Door) -> None:
    model, rows, config = door
    known = torch.randn(4, 3)
    first = adapt(model, rows, config, known)
    torch.rand(100)
    second = adapt(model, rows, config, known)
    np.testing.assert_array_equal(first.context, second.context)
    assert (first.nll_after, first.ood_score) == (second.nll_after, second.ood_score)


def test_the_hold_out_takes_no_part_in_the_context(door: Door) -> None:
    model, rows, config = door
    marked = rows._replace(reward=torch.arange(50.0))
    held_rows = split_holdout(marked, config.holdout_fraction)[1].reward.long()
    changed = rows._replace(reward=rows.reward.index_fill(0, held_rows, 9.0))
    known = torch.randn(4, 3)
    before, after = adapt(model, rows, config, known), adapt(model, changed, config, known)
    np.testing.assert_array_equal(before.context, after.context)
    assert after.nll_after > before.nll_after + 1.0


@pytest.mark.parametrize("n", [5, 20, 33, 400])
def test_the_hold_out_is_a_fifth_and_nothing_is_lost(
    reward_spec: EnvSpec, transitions: Callable[..., Transitions], n: int
) -> None:
    rows = transitions(reward_spec, n)._replace(reward=torch.arange(float(n)))
    fit, held = split_holdout(rows, 0.2)
    assert held.size == max(1, round(0.2 * n))
    assert sorted(torch.cat([fit.reward, held.reward]).tolist()) == list(range(n))


@pytest.mark.parametrize("method", list(AdaptMethod))
def test_absurd_data_never_gives_a_plausible_context(
    reward_spec: EnvSpec, dynamics_spec: EnvSpec, transitions: Callable[..., Transitions], method: AdaptMethod
) -> None:
    """Finite, so that no door refuses it, but beyond what float32 can work with."""
    closed = method is AdaptMethod.CLOSED_FORM
    spec, config = reward_spec if closed else dynamics_spec, AdaptConfig(method=method, min_transitions=20)
    model = DynamicsModel(spec, LINEAR_HEAD if closed else FILM_GATE, config)
    rows = transitions(spec, 40)
    absurd = rows._replace(observation=rows.observation * 1e38, next_observation=rows.next_observation * 1e38)
    found = adapt(model, absurd, config, torch.randn(3, model.config.context_dim))
    stayed = np.array_equal(found.context, model.prior_context.detach().numpy())
    assert stayed or not np.isfinite(found.context).all()


def test_too_little_data_says_how_much_is_needed(door: Door) -> None:
    model, rows, config = door
    with pytest.raises(InsufficientData, match="at least 20 transitions, came 19"):
        adapt(model, rows.rows(slice(0, 19)), config, torch.zeros(2, 3))
    assert adapt(model, rows.rows(slice(0, 20)), config, torch.zeros(2, 3)).transitions_used == 20


def test_many_tasks_adapt_as_each_alone(
    dynamics_checkpoint: Checkpoint, transitions: Callable[..., Transitions]
) -> None:
    agent = dynamics_checkpoint.agent
    tasks = [transitions(agent.spec, n, seed) for seed, n in enumerate((40, 60, 40, 40, 25))]
    together = adapt_many(agent.model, tasks, agent.configuration.adapt, agent.training_contexts)
    for rows, found in zip(tasks, together, strict=True):
        alone = agent.adapt(rows)
        assert found.transitions_used == rows.size
        np.testing.assert_allclose(found.context, alone.context, rtol=1e-3, atol=1e-4)
        for name in ("nll_before", "nll_after", "ood_score"):
            assert getattr(found, name) == pytest.approx(getattr(alone, name), rel=1e-3)
    with pytest.raises(InsufficientData, match="came 5"):
        adapt_many(agent.model, [tasks[0], tasks[0].rows(slice(5))], agent.configuration.adapt, agent.training_contexts)
