"""Exploration noise as a pure function: a retried call repeats its action."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise(seed: int, episode: int, step: int, action_dim: int) -> NDArray[np.float32]:
    """Standard normal [action_dim], determined by (seed, episode, step) alone (counter-based Philox)."""
    # Philox takes a 128-bit key and a 256-bit counter; the low counter word is left for the draws themselves.
    # Explicitly unsigned: NumPy reads a list with a number of 2^63 or more as floats, and large seeds fall together.
    key = np.array([seed % 2**64, episode], np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, step, 0, 0], np.uint64))
    return np.random.Generator(bits).standard_normal(action_dim, np.float32)
