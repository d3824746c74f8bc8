"""Normalisation statistics as module buffers, so that they travel with the weights of a checkpoint."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn


class Normalizer(nn.Module):
    """Shifts and scales [..., dim] to zero mean and unit variance; statistics are buffers, never trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    @torch.no_grad()
    def fit(self, rows: Tensor, minimum_std: float = 1e-2, rate: float = 1.0) -> Self:
        """Move the statistics by `rate` towards those of rows [n, dim]; `minimum_std` keeps constants finite."""
        self.mean.lerp_(rows.mean(0), rate)
        self.std.lerp_(rows.std(0, correction=0).clamp_min(minimum_std), rate)
        return self

    def forward(self, value: Tensor) -> Tensor:
        return (value - self.mean) / self.std

    def inverse(self, value: Tensor) -> Tensor:
        return value * self.std + self.mean
