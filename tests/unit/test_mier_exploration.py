"""Exploration noise: a pure function of (seed, episode, step), standard normal, never the same twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mier.exploration import noise


def test_a_repeated_call_repeats_its_noise() -> None:
    first = noise(3, 1, 4, 6)
    np.random.default_rng().standard_normal(5)
    noise(3, 1, 5, 6)
    np.testing.assert_array_equal(noise(3, 1, 4, 6), first)
    assert first.dtype == np.float32
    assert first.shape == (6,)


def test_the_values_are_pinned() -> None:
    """A retried action must be the same after an upgrade too."""
    np.testing.assert_allclose(noise(0, 0, 0, 3), [0.059911035, 0.0155596342, -1.16443849], rtol=1e-6)


def test_each_seed_episode_and_step_has_its_own() -> None:
    seeds = (0, 1, 2, -1, 2**31, 2**63, 2**64 - 2)
    drawn = {
        noise(seed, episode, step, 2).tobytes()
        for seed, episode, step in itertools.product(seeds, range(5), range(200))
    }
    assert len(drawn) == len(seeds) * 5 * 200


def test_long_draws_do_not_run_into_the_next_steps() -> None:
    """Counters one apart would share all but the first few numbers of a draw."""
    steps = [set(noise(0, 0, step, 64).tolist()) for step in range(3)]
    assert not steps[0] & steps[1]
    assert not steps[1] & steps[2]


def test_swapped_arguments_differ() -> None:
    calls = [noise(a, b, c, 4).tobytes() for a, b, c in itertools.permutations((1, 2, 3))]
    assert len(set(calls)) == 6


def test_it_is_standard_normal_and_uncorrelated() -> None:
    drawn = np.stack([noise(7, episode, step, 6) for episode in range(20) for step in range(200)])
    assert np.abs(drawn.mean(0)).max() < 0.06
    assert np.abs(drawn.std(0) - 1.0).max() < 0.05
    assert np.abs((drawn**4).mean() - 3.0) < 0.25  # Gaussian tails
    assert np.abs(np.corrcoef(drawn.T) - np.eye(6)).max() < 0.06
    assert np.abs((drawn[1:] * drawn[:-1]).mean(0)).max() < 0.06  # from step to step


@pytest.mark.parametrize("seed", [2**63 - 2, 2**63, 2**64 - 3, -5])
def test_neighbouring_large_seeds_differ(seed: int) -> None:
    assert not np.array_equal(noise(seed, 0, 0, 3), noise(seed + 1, 0, 0, 3))


@pytest.mark.parametrize(("episode", "step"), [(-1, 0), (0, -1)])
def test_negative_counters_are_refused(episode: int, step: int) -> None:
    with pytest.raises(OverflowError):
        noise(0, episode, step, 3)
