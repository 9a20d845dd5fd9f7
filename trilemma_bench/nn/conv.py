"""Convolutional networks between images and vectors: the halves of a GAN and of a VAE.

Both work on a pyramid that halves the image until it is at most 4 pixels wide or odd: 8 → 4, 28 → 7, 32 and 64 → 4.
"""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn

from trilemma_bench.nn.layers import group_norm, minibatch_stddev
from trilemma_bench.nn.resample import FIRDownsample, FIRUpsample


class ConvDecoder(nn.Module):
    """Vectors N×latent → images N×C×H×W, unbounded. channels: the width at full size; it doubles twice at most."""

    def __init__(self, latent: int, shape: tuple[int, ...], channels: int) -> None:
        super().__init__()
        size, widths = _pyramid(shape, channels)
        self.start = (widths[-1], size, size)
        self.first = nn.Linear(latent, math.prod(self.start))
        self.blocks = nn.Sequential(
            DecoderBlock(widths[-1], widths[-1], nn.Identity()),
            *[DecoderBlock(*pair, FIRUpsample()) for pair in itertools.pairwise(reversed(widths))],
        )
        last = nn.Conv2d(channels, shape[0], 3, padding=1)
        self.last = nn.Sequential(group_norm(channels), nn.SiLU(), last)

    def forward(self, latent: Tensor) -> Tensor:
        return self.last(self.blocks(self.first(latent).view(-1, *self.start)))


class ConvEncoder(nn.Module):
    """Images N×C×H×W → N×outputs, without normalisation, as an R1 penalty wants it.

    compares_samples: adds the minibatch deviation before the last layers.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, channels: int, compares_samples: bool = False) -> None:
        super().__init__()
        size, widths = _pyramid(shape, channels)
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.blocks = nn.Sequential(*[EncoderBlock(*pair) for pair in itertools.pairwise(widths)])
        self.compares_samples = compares_samples
        self.last = nn.Sequential(
            nn.Conv2d(widths[-1] + compares_samples, widths[-1], 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(widths[-1] * size**2, outputs),
        )

    def forward(self, images: Tensor) -> Tensor:
        h = self.blocks(self.first(images))
        return self.last(minibatch_stddev(h) if self.compares_samples else h)


class DecoderBlock(nn.Module):
    """A residual block that may first enlarge the image."""

    def __init__(self, inputs: int, outputs: int, resample: nn.Module) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1), resample)
        self.body = nn.Sequential(
            group_norm(inputs),
            nn.SiLU(),
            resample,
            nn.Conv2d(inputs, outputs, 3, padding=1),
            group_norm(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) + self.body(x)) * 0.5**0.5


class EncoderBlock(nn.Module):
    """A residual block that halves the image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(FIRDownsample(), nn.Conv2d(inputs, outputs, 1, bias=False))
        self.body = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.LeakyReLU(0.2),
            FIRDownsample(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) + self.body(x)) * 0.5**0.5


def _pyramid(shape: tuple[int, ...], channels: int) -> tuple[int, list[int]]:
    """(smallest size, widths from the full size to the smallest)."""
    size, widths = shape[-1], [channels]
    while size > 4 and size % 2 == 0:
        size //= 2
        widths.append(min(2 * widths[-1], 4 * channels))
    return size, widths
