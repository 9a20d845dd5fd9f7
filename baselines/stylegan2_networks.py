"""The networks of StyleGAN2 (Karras et al. 2020a), in plain torch, from the formulas of the paper.

Images halve from full size until they are at most 4 pixels wide or odd: 32 → 4, 28 → 7. At 32 pixels and the default
widths the generator has 19.95 M parameters and the discriminator 20.72 M, as the CIFAR-10 configuration of Karras et
al. 2020b.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma_bench.nn.embedding import unit_mean_square
from trilemma_bench.nn.labels import LabelEmbedding
from trilemma_bench.nn.layers import minibatch_stddev
from trilemma_bench.nn.mlp import MLP
from trilemma_bench.nn.resample import FIRUpsample, fir_filter, normalised

MAPPING_LR = 0.01  # of the mapping network, relative to the others'
W_AVERAGE_BETA = 0.995
STDDEV_GROUP = 32
EPSILON = 1e-8


def widths(size: int, channels: int, channel_base: int) -> dict[int, int]:
    """Image size → feature maps, from full size to the smallest: channel_base/size, and `channels` at most."""
    sizes = [size]
    while sizes[-1] > 4 and sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    return {each: max(1, min(channels, channel_base // each)) for each in sizes}


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU with the gain √2, which keeps the variance of its input."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class EqualisedLinear(nn.Module):
    """A dense layer whose weight is stored at unit variance and scaled as it is used (Karras et al. 2018, §4.1).

    lr_multiplier: how much slower it learns than its neighbours; bias: the initial value.
    """

    def __init__(self, inputs: int, outputs: int, *, lr_multiplier: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.lr_multiplier, self.gain = lr_multiplier, lr_multiplier / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.lr_multiplier)


class EqualisedConv2d(nn.Module):
    """A convolution of N×C×H×W, scaled as it is used, then leaky ReLU; halving: low-pass filtered, with stride 2."""

    def __init__(self, inputs: int, outputs: int, size: int, *, halving: bool = False) -> None:
        super().__init__()
        self.gain, self.halving, self.padding = 1 / math.sqrt(inputs * size**2), halving, size // 2
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if self.halving:
            return leaky(F.conv2d(fir_filter(x, normalised(), padding=2), weight, self.bias, stride=2))
        return leaky(F.conv2d(x, weight, self.bias, padding=self.padding))


class ModulatedConv2d(nn.Module):
    """A convolution whose weights are scaled by a style for each sample (Karras et al. 2020a, eq. 1 and 3).

    It scales the inputs and outputs in place of the weights, which is the same function. demodulate: brings the outputs
    back to unit variance. doubling: N×C×H×W → 2H×2W, by the transposed convolution, then the low-pass filter.
    """

    def __init__(
        self, inputs: int, outputs: int, style_dim: int, size: int, *, demodulate: bool = True, doubling: bool = False
    ) -> None:
        super().__init__()
        self.gain, self.padding = 1 / math.sqrt(inputs * size**2), size // 2
        self.demodulate, self.doubling = demodulate, doubling
        self.style = EqualisedLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: N×C×H×W; w: N×style_dim."""
        style, weight = self.style(w), self.weight * self.gain
        h = self._convolve(_scaled(x, style), weight)
        return _scaled(h, self._demodulation(style, weight)) if self.demodulate else h

    def _demodulation(self, style: Tensor, weight: Tensor) -> Tensor:
        """1 over the norm of each sample's modulated weights: N×outputs."""
        return torch.rsqrt(style.square() @ weight.square().sum(dim=(2, 3)).t() + EPSILON)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.doubling:
            wide = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            return fir_filter(wide, normalised(gain=4.0), padding=1)
        return F.conv2d(x, weight, padding=self.padding)


def _scaled(x: Tensor, factors: Tensor) -> Tensor:
    """Scales the channels of each sample; `factors`: N×C."""
    return x * factors.to(x.dtype)[:, :, None, None]


class StyledLayer(nn.Module):
    """Modulated convolution, noise of a learned strength, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, doubling: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, style_dim, 3, doubling=doubling)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """noise: N×1×H×W, at the size of the output."""
        h = self.conv(x, w)
        h = h + (self.strength * noise).to(h.dtype) + self.bias.to(h.dtype)[:, None, None]
        return leaky(h)


class ToRGB(nn.Module):
    """Features → their share of the image, float32."""

    def __init__(self, inputs: int, image_channels: int, style_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, image_channels, style_dim, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w).float() + self.bias[:, None, None]


class MappingLayer(EqualisedLinear):
    """A dense layer that learns a hundred times as slowly as others, then leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, lr_multiplier=MAPPING_LR)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(super().forward(x))


class MappingNetwork(nn.Module):
    """z → w, N×style_dim, float32. It keeps the average of w, towards which truncation draws when it is not training.

    truncation: ψ, 1 for none, 0 for the average image alone (Karras et al. 2019, app. B). classes: of labels, whose
    normalised vectors, N×style_dim, stand beside the normalised z (Karras et al. 2020b); 0 for none.
    """

    average: Tensor

    def __init__(self, latent_dim: int, style_dim: int, layers: int, truncation: float = 1.0, classes: int = 0) -> None:
        super().__init__()
        self.truncation = truncation
        self.labels = LabelEmbedding(classes, style_dim) if classes else None
        sizes = [latent_dim + (style_dim if classes else 0)] + [style_dim] * layers
        self.layers = nn.Sequential(*(MappingLayer(*pair) for pair in pairwise(sizes)))
        self.register_buffer("average", torch.zeros(style_dim))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = unit_mean_square(z)
        if self.labels is not None:
            h = torch.cat([h, self.labels(labels)], dim=1)
        w = self.layers(h).float()
        if self.training:
            with torch.no_grad():
                self.average.lerp_(w.mean(dim=0), 1 - W_AVERAGE_BETA)
        elif self.truncation != 1:
            w = self.average.lerp(w, self.truncation)
        return w


class LabelMapping(nn.Sequential):
    """Labels (int64 N) → what a discriminator projects on, N×dim: normalised vectors, through `layers` dense layers."""

    def __init__(self, classes: int, dim: int, layers: int) -> None:
        super().__init__(LabelEmbedding(classes, dim), *(MappingLayer(dim, dim) for _ in range(layers)))


class Synthesis(nn.Module):
    """w → images N×C×H×W, float32, unbounded: the sum of what each resolution paints ('skip' architecture)."""

    def __init__(self, shape: tuple[int, ...], style_dim: int, channels: int, channel_base: int) -> None:
        super().__init__()
        by_size = dict(reversed(widths(shape[-1], channels, channel_base).items()))
        self.sizes = list(by_size)
        first = by_size[self.sizes[0]]
        self.start = nn.Parameter(torch.randn(first, self.sizes[0], self.sizes[0]))
        self.doubling = nn.ModuleList(
            StyledLayer(*pair, style_dim, doubling=True) for pair in pairwise(by_size.values())
        )
        self.plain = nn.ModuleList(StyledLayer(width, width, style_dim) for width in by_size.values())
        self.to_rgb = nn.ModuleList(ToRGB(width, shape[0], style_dim) for width in by_size.values())
        self.upsample = FIRUpsample()

    @property
    def noise_sizes(self) -> list[int]:
        """The image size of each layer's noise, in the order of the layers."""
        return [self.sizes[0], *[size for size in self.sizes[1:] for _ in range(2)]]

    def forward(self, w: Tensor, noise: Tensor) -> Tensor:
        """noise: N×K, standard normal, all layers' one after the other."""
        maps = _as_maps(noise, self.noise_sizes)
        h = self.plain[0](self.start.expand(len(w), -1, -1, -1), w, next(maps))
        image = self.to_rgb[0](h, w)
        for doubling, plain, to_rgb in zip(self.doubling, self.plain[1:], self.to_rgb[1:], strict=True):
            h = plain(doubling(h, w, next(maps)), w, next(maps))
            image = self.upsample(image) + to_rgb(h, w)
        return image


def _as_maps(noise: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """N×K → a map N×1×size×size for each size."""
    parts = noise.split([size**2 for size in sizes], dim=1)
    return (part.reshape(-1, 1, size, size) for part, size in zip(parts, sizes, strict=True))


class Generator(nn.Module):
    """z (N×latent_dim) and noise (N×noise_dim), both standard normal, and labels (int64 N), where the mapping takes
    them → samples; points come from a perceptron of w.
    """

    def __init__(self, mapping: MappingNetwork, synthesis: Synthesis | MLP) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis
        self.noise_dim = sum(size**2 for size in synthesis.noise_sizes) if isinstance(synthesis, Synthesis) else 0

    def forward(self, z: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        w = self.mapping(z, labels)
        return self.synthesis(w, noise) if isinstance(self.synthesis, Synthesis) else self.synthesis(w)


class Discriminator(nn.Module):
    """Images N×C×H×W → N×outputs, logits if 1: convolutions without shortcuts ('orig'), and the minibatch deviation at
    the end.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, channel_base: int, outputs: int = 1) -> None:
        super().__init__()
        by_size = widths(shape[-1], channels, channel_base)
        size, width = list(by_size.items())[-1]
        self.blocks = nn.Sequential(
            EqualisedConv2d(shape[0], by_size[shape[-1]], 1),
            *[
                nn.Sequential(EqualisedConv2d(inputs, inputs, 3), EqualisedConv2d(inputs, outputs, 3, halving=True))
                for inputs, outputs in pairwise(by_size.values())
            ],
        )
        self.conv = EqualisedConv2d(width + 1, width, 3)
        self.dense = EqualisedLinear(width * size**2, width)
        self.out = EqualisedLinear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        h = self.conv(minibatch_stddev(self.blocks(images).float(), STDDEV_GROUP))
        return self.out(leaky(self.dense(h.flatten(1))))
