"""Exploration noise as a pure function: a retried call repeats its action."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise(seed: int, episode: int, step: int, action_dim: int) -> NDArray[np.float32]:
    """Standard normal [action_dim], determined by (seed, episode, step) alone (counter-based Philox)."""
    # Philox takes a 128-bit key and a 256-bit counter; the low counter word is left for the draws themselves.
    bits = np.random.Philox(key=[seed % 2**64, episode], counter=[0, step, 0, 0])
    return np.random.Generator(bits).standard_normal(action_dim, np.float32)
