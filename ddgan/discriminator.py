"""The time-conditioned image discriminator: residual blocks without normalisation, minibatch deviation at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trilemma_bench.nn.embedding import TimestepEmbedding
from trilemma_bench.nn.layers import init_fan_average, minibatch_stddev
from trilemma_bench.nn.resample import FIRDownsample

SQRT_HALF = 0.5**0.5
SMALLEST = 4


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
    """D(x_t, x_{t+1}, t) → logits N; the two images are stacked as channels.

    channels: width at full size, doubled twice at most on the way down to 4×4 (or the last odd size). The last layer
    sees where in the image its inputs lie, where the paper's sums over all places: a small network needs to know.
    """

    def __init__(self, shape: tuple[int, ...], *, channels: int, time_dim: int) -> None:
        super().__init__()
        self.time = nn.Sequential(TimestepEmbedding(time_dim, time_dim, nn.LeakyReLU(0.2)), nn.LeakyReLU(0.2))
        self.first = nn.Conv2d(2 * shape[0], channels, 1)
        self.blocks = nn.ModuleList([DownBlock(channels, channels, time_dim, halve=False)])
        size, width = shape[-1], channels
        while size > SMALLEST and size % 2 == 0:
            wider = min(2 * width, 4 * channels)
            self.blocks.append(DownBlock(width, wider, time_dim, halve=True))
            size, width = size // 2, wider
        self.conv = nn.Conv2d(width + 1, width, 3, padding=1)
        self.activation = nn.LeakyReLU(0.2)
        self.last = nn.Linear(width * size**2, 1)
        self.apply(init_fan_average)

    def forward(self, x: Tensor, x_next: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)
        h = self.first(torch.cat([x, x_next], dim=1))
        for block in self.blocks:
            h = block(h, time)
        h = self.activation(self.conv(minibatch_stddev(self.activation(h))))
        return self.last(h.flatten(1)).squeeze(1)
