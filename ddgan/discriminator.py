"""The time-conditioned image discriminator: residual blocks without normalisation, minibatch deviation at the end."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from trilemma_bench.nn.embedding import TimestepEmbedding, silent_embedding
from trilemma_bench.nn.layers import init_fan_out, minibatch_stddev
from trilemma_bench.nn.resample import FIRDownsample

SQRT_HALF = 0.5**0.5
SMALLEST = 4  # pixels, at which no block halves any more
SMALL_SIZE = 64  # pixels, up to which the discriminator is small unless told otherwise
SILENT = 1e-10  # gain of layers that start nearly silent: not 0, from which all filters would learn alike


class DownBlock(nn.Module):
    """act – conv – time – act – [FIR halving] – conv, plus a 1×1 shortcut, over √2."""

    def __init__(self, inputs: int, outputs: int, time_dim: int, halve: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_dim, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.halve: nn.Module = FIRDownsample() if halve else nn.Identity()
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(self.activation(x)) + self.time(time)[:, :, None, None]
        h = self.conv2(self.halve(self.activation(h)))
        return (h + self.shortcut(self.halve(x))) * SQRT_HALF


class ImageDiscriminator(nn.Module):
    """D(x_t, given, t, labels) → logits N; `given` is x_{t+1}, stacked as channels, or nothing (N×0×H×W). Residual
    branches start nearly silent, and so does the last convolution of a small one, as in the paper's program.

    image_channels: of both together. size: H = W. channels: width at full size, doubled twice at most on the way down
    to 4×4, or to the last odd size. large: the first block halves at once, as the paper's at 256 pixels does; with 128
    channels 27.74 M parameters there, and 12.74 M for the small one at CIFAR-10's size. flatten: the last layer sees
    where in the image its inputs lie, where the paper's sums over all places: small images need it. classes: of labels,
    whose learned vectors join the embedded time; 0 for none.
    """

    def __init__(
        self,
        image_channels: int,
        size: int,
        *,
        channels: int,
        time_dim: int,
        large: bool,
        flatten: bool,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.flatten = flatten
        self.time = nn.Sequential(TimestepEmbedding(time_dim, time_dim, nn.LeakyReLU(0.2)), nn.LeakyReLU(0.2))
        self.labels = silent_embedding(classes, time_dim) if classes else None
        self.first = nn.Conv2d(image_channels, channels, 1)
        halvings = _halvings(size)
        same_size = [] if large else [DownBlock(channels, channels, time_dim, halve=False)]
        widths = [channels] + [channels * min(2 ** (1 + level), 4) for level in range(halvings)]
        halving = [DownBlock(*pair, time_dim, halve=True) for pair in pairwise(widths)]
        blocks = [*same_size, *halving]
        self.blocks = nn.ModuleList(blocks)
        self.conv = nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.activation = nn.LeakyReLU(0.2)
        self.last = nn.Linear(widths[-1] * ((size >> halvings) ** 2 if flatten else 1), 1)
        self.apply(init_fan_out)
        for layer in [*(block.conv2 for block in blocks), *([] if large else [self.conv])]:
            init_fan_out(layer, SILENT)

    def forward(self, x: Tensor, given: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        time = self.time(t)
        if self.labels is not None:
            time = time + self.labels(labels)
        h = self.first(torch.cat([x, given], dim=1))
        for block in self.blocks:
            h = block(h, time)
        h = self.activation(self.conv(minibatch_stddev(h)))
        return self.last(h.flatten(1) if self.flatten else h.sum(dim=(2, 3))).squeeze(1)


def _halvings(size: int) -> int:
    """How often `size` pixels are halved on the way down to 4, or to the last odd number."""
    return 0 if size <= SMALLEST or size % 2 else 1 + _halvings(size // 2)
