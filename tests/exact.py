"""Data whose noisy marginals are known in closed form, to be plugged into samplers in place of a network."""

from __future__ import annotations

import torch
from torch import Tensor


class Mixture:
    """An even mixture of N(mean, std²) in one dimension; x_t = signal·x_0 + noise·ε has the same shape."""

    def __init__(self, means: list[float], std: float) -> None:
        self.means, self.std = torch.tensor(means, dtype=torch.float64), std

    def weights(self, x: Tensor, signal: float | Tensor, noise: float | Tensor) -> Tensor:
        """p(component | x_t = x), N×components, of x (N×1)."""
        variance = (signal * self.std) ** 2 + noise**2
        return torch.softmax(-0.5 * (x - signal * self.means) ** 2 / variance, dim=1)

    def score(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """∇ log p_t at x (N×1)."""
        offset = (self.weights(x, signal, noise) * (x - signal * self.means)).sum(dim=1, keepdim=True)
        return -offset / ((signal * self.std) ** 2 + noise**2)

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """E[x_0 | x_0 + σε = x] (Tweedie)."""
        return x + sigma**2 * self.score(x, 1.0, sigma)

    def cumulative(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """P(x_t ≤ x) of x (N×1)."""
        deviation = ((signal * self.std) ** 2 + noise**2) ** 0.5
        return torch.special.ndtr((x - signal * self.means) / deviation).mean(dim=1, keepdim=True)

    def quantile(self, share: Tensor, signal: float, noise: float) -> Tensor:
        """The x (N×1) with P(x_t ≤ x) = share (N×1), by bisection."""
        low, high = torch.full_like(share, -50.0), torch.full_like(share, 50.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cumulative(middle, signal, noise) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low

    def recovered(self, x: Tensor, tolerance: float = 0.05) -> bool:
        """Whether x (N×1, some thousands) are samples of it: each component's share, mean and deviation.

        tolerance: of means and deviations, as a share of the component's deviation, and of a share.
        """
        nearest = (x - self.means).abs().argmin(dim=1)
        parts = [x[nearest == each] for each in range(len(self.means))]
        return all(
            abs(len(part) / len(x) - 1 / len(parts)) < tolerance
            and abs(float(part.mean() - mean)) / self.std < tolerance
            and abs(float(part.std()) / self.std - 1) < tolerance
            for part, mean in zip(parts, self.means, strict=True)
        )


def noise(count: int, seed: int = 1) -> Tensor:
    return torch.randn((count, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
