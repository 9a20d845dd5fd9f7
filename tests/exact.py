"""Data whose noisy marginals are known in closed form, to be plugged into samplers in place of a network."""

from __future__ import annotations

import torch
from torch import Tensor


class Mixture:
    """An even mixture of N(mean, std²) in one dimension; x_t = signal·x_0 + noise·ε has the same shape."""

    def __init__(self, means: list[float], std: float) -> None:
        self.means, self.std = torch.tensor(means, dtype=torch.float64), std

    def score(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """∇ log p_t at x (N×1)."""
        variance = (signal * self.std) ** 2 + noise**2
        offset = x - signal * self.means
        weight = torch.softmax(-0.5 * offset**2 / variance, dim=1)
        return -(weight * offset).sum(dim=1, keepdim=True) / variance

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """E[x_0 | x_0 + σε = x] (Tweedie)."""
        return x + sigma**2 * self.score(x, 1.0, sigma)


def noise(count: int, seed: int = 1) -> Tensor:
    return torch.randn((count, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
