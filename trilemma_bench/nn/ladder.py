"""A ladder of Gaussian latents from coarse to fine: the network of a hierarchical variational autoencoder.

The top-down inference of Sønderby et al. 2016 (arXiv:1602.02282) with the blocks of Child 2021 (arXiv:2011.10650):
going down, each rung draws latents for every place of its maps, by a prior that sees what is above, in training by a
posterior that sees the image too, and adds them to what goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma_bench.nn.layers import init_zero, joined
from trilemma_bench.nn.resample import NearestUpsample

LOG_STD_LIMIT = 5.0  # of priors and posteriors, as in NVAE (Vahdat & Kautz 2020, arXiv:2007.03898, §3.2)


class LadderEncoder(nn.Module):
    """Images N×C×S×S → their maps at each size of the ladder, from coarse to fine, each N×channels×s×s."""

    def __init__(self, image_channels: int, sizes: Sequence[int], channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.levels = nn.ModuleList(nn.Sequential(Block(channels), Block(channels)) for _ in sizes)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.first(images)]
        for index, level in enumerate(self.levels):
            maps.append(level(F.avg_pool2d(maps[-1], 2) if index else maps[-1]))
        return maps[:0:-1]


class Ladder(nn.Module):
    """Noise N×latents → images N×C×S×S, unbounded; with an encoder's maps, also the divergence of each image, N.

    sizes: of the maps from coarse to fine, each twice the one before. rungs: of each size. width: latents of a place.
    """

    def __init__(self, image_channels: int, sizes: Sequence[int], rungs: int, channels: int, width: int) -> None:
        super().__init__()
        self.sizes, self.width = [size for size in sizes for _ in range(rungs)], width
        self.start = nn.Parameter(torch.zeros(1, channels, sizes[0], sizes[0]))
        self.levels = nn.ModuleList(nn.ModuleList(Rung(channels, width) for _ in range(rungs)) for _ in sizes)
        self.enlarge = NearestUpsample()
        self.last = nn.Conv2d(channels, image_channels, 3, padding=1)

    @property
    def latents(self) -> int:
        """How many numbers the noise of an image has."""
        return sum(self.width * size**2 for size in self.sizes)

    def forward(self, noise: Tensor, maps: Sequence[Tensor] | None = None) -> Tensor | tuple[Tensor, Tensor]:
        draws = iter(self._as_maps(noise))
        h, divergence = self.start.expand(len(noise), -1, -1, -1), noise.new_zeros(len(noise))
        for index, level in enumerate(self.levels):
            h = self.enlarge(h) if index else h
            for rung in level.children():
                h, nats = rung(h, next(draws), None if maps is None else maps[index])
                divergence = divergence + nats
        image = self.last(h)
        return image if maps is None else (image, divergence)

    def _as_maps(self, noise: Tensor) -> list[Tensor]:
        """The noise of each rung: N×width×s×s, channels last in memory."""
        parts = noise.split([self.width * size**2 for size in self.sizes], dim=1)
        return [p.view(-1, s, s, self.width).permute(0, 3, 1, 2) for p, s in zip(parts, self.sizes, strict=True)]


class Rung(nn.Module):
    """One group of latents: what is above, and the latents drawn given it, N×channels×s×s."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.prior = Bottleneck(channels, 2 * width + channels)
        self.posterior = Bottleneck(2 * channels, 2 * width, channels // 2)
        self.project = nn.Conv2d(width, channels, 1)
        self.block = Block(channels)
        self.width = width

    def forward(self, h: Tensor, noise: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """noise: standard normal N×width×s×s. seen: the encoder's maps. Also gives KL(posterior ‖ prior), N."""
        mean, log_std, further = self.prior(h).split([self.width, self.width, h.shape[1]], dim=1)
        mean, log_std = mean.float(), limited(log_std)
        nats = noise.new_zeros(len(noise))
        if seen is not None:
            shift, change = self.posterior(joined(h, seen)).chunk(2, dim=1)
            nats = relative_kl(shift := shift.float(), change := limited(change))
            mean, log_std = mean + log_std.exp() * shift, log_std + change
        latents = mean + log_std.exp() * noise
        return self.block(h + further + self.project(latents)), nats


def limited(log_std: Tensor) -> Tensor:
    return LOG_STD_LIMIT * torch.tanh(log_std.float() / LOG_STD_LIMIT)


def relative_kl(shift: Tensor, change: Tensor) -> Tensor:
    """KL(q ‖ p) of N×… Gaussians, summed to N: q's mean is `shift` of p's deviations away, q's deviation exp(change)
    times p's (Vahdat & Kautz 2020, eq. 2).
    """
    return (0.5 * (shift.square() + torch.exp(2 * change) - 1) - change).flatten(1).sum(dim=1)


class Bottleneck(nn.Module):
    """Channels → outputs through two 3×3 convolutions of fewer channels; 0 at the start."""

    def __init__(self, inputs: int, outputs: int, middle: int | None = None) -> None:
        super().__init__()
        middle = middle or max(1, inputs // 2)
        last = nn.Conv2d(middle, outputs, 1)
        init_zero(last)
        self.layers = nn.Sequential(
            nn.SiLU(), nn.Conv2d(inputs, middle, 1),
            nn.SiLU(), nn.Conv2d(middle, middle, 3, padding=1),
            nn.SiLU(), nn.Conv2d(middle, middle, 3, padding=1),
            nn.SiLU(), last,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Block(nn.Module):
    """A bottleneck around which there is a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = Bottleneck(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
