"""Embeddings that feed a network more than the bare number: of time steps, and of a point's coordinates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def timestep_embedding(steps: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoids of `steps` (shape N, any dtype): float32 N×dim, half sines, half cosines, wavelengths from 2π to
    2π·max_period (Vaswani et al. 2017, §3.5, in the layout of Ho et al. 2020). An odd `dim` ends with a zero.
    """
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=steps.device) / max(half - 1, 1)
    phase = steps.float()[:, None] * torch.exp(-math.log(max_period) * exponent)
    embedding = torch.cat([phase.sin(), phase.cos()], dim=1)
    return F.pad(embedding, (0, 1)) if dim % 2 else embedding


class TimestepEmbedding(nn.Module):
    """Sinusoids through two dense layers: steps of shape (N,), or N×times where a sample has several → N×hidden.

    fourier_scale: of random frequencies instead, twice `dim` in number, for one time a sample; 0 for none.
    augmentation: how many numbers tell what was done to a training image; they join the sinusoids (Karras et al. 2022).
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        activation: nn.Module | None = None,
        times: int = 1,
        fourier_scale: float = 0.0,
        augmentation: int = 0,
    ) -> None:
        super().__init__()
        self.dim, self.width = dim, 2 * dim if fourier_scale else times * dim
        self.fourier = FourierEmbedding(dim, fourier_scale) if fourier_scale else None
        self.augmentation = nn.Linear(augmentation, self.width, bias=False) if augmentation else None
        first = nn.Linear(self.width, hidden)
        self.layers = nn.Sequential(first, activation or nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, steps: Tensor, augmentation: Tensor | None = None) -> Tensor:
        """augmentation: N×numbers; None where nothing was done, as if they were all 0."""
        sinusoids = timestep_embedding(steps.flatten(), self.dim) if self.fourier is None else self.fourier(steps)
        h = sinusoids.view(-1, self.width)
        if self.augmentation is not None and augmentation is not None:
            h = h + self.augmentation(augmentation)
        return self.layers(h)


def silent_embedding(count: int, dim: int) -> nn.Embedding:
    """`count` learned vectors that add nothing at the start."""
    embedding = nn.Embedding(count, dim)
    nn.init.zeros_(embedding.weight)
    return embedding


def unit_mean_square(x: Tensor) -> Tensor:
    """The rows of x (N×D), each scaled to a mean square of 1 (Karras et al. 2018, §4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class Conditioning(nn.Module):
    """Times and, where there are `classes`, labels → N×hidden, as the blocks of a network take them.

    embed: of the times. Labels add nothing at the start; the last of their
    learned vectors stands for no label (Ho & Salimans 2022).
    """

    def __init__(self, embed: TimestepEmbedding, hidden: int, classes: int = 0) -> None:
        super().__init__()
        self.embed, self.classes = embed, classes
        self.labels = silent_embedding(classes + 1, hidden) if classes else None

    def forward(self, times: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        """labels: int64 N, `classes` for none; None where no sample has one. augmentation: as `embed` has it."""
        h = self.embed(times, augmentation)
        if self.labels is not None:
            h = h + self.labels(torch.full((1,), self.classes, device=h.device) if labels is None else labels)
        return F.silu(h)


class FourierFeatures(nn.Module):
    """Coordinates x (N×D) with the sines and cosines of 2π Bx beside them: N×(D + 2·count).

    B is fixed, Gaussian with standard deviation `scale` (cycles per unit of x): a large scale lets a small network
    resolve narrow structure (Tancik et al. 2020). It is part of the state, since it is random.
    """

    frequencies: Tensor

    def __init__(self, dim: int, count: int, scale: float = 1.0) -> None:
        super().__init__()
        self.out_features = dim + 2 * count
        self.register_buffer("frequencies", 2 * math.pi * scale * torch.randn(dim, count))

    def forward(self, points: Tensor) -> Tensor:
        phase = points @ self.frequencies
        return torch.cat([points, phase.sin(), phase.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """Times of shape (N,) → N×2·count: sines and cosines of 2πbt, with fixed frequencies b ~ N(0, scale²) in cycles per
    unit of time (Tancik et al. 2020; Song et al. 2021, App. H.2). They are part of the state, since they are random.
    """

    frequencies: Tensor

    def __init__(self, count: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * scale * torch.randn(count))

    def forward(self, time: Tensor) -> Tensor:
        phase = time.float()[:, None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)
