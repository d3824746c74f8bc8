"""The randomness of one epoch of training, a function of (seed, epoch number) (ADR 0005)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class EpochRandom:
    """All randomness of one epoch."""

    numpy: np.random.Generator
    torch: torch.Generator

    @staticmethod
    def of(seed: int, epoch: int) -> EpochRandom:
        sequence = np.random.SeedSequence([seed, epoch])
        return EpochRandom(
            np.random.default_rng(sequence),
            torch.Generator().manual_seed(int(sequence.generate_state(2, np.uint64)[1] >> 1)),
        )
