"""The U-Net of score-based models: DDPM++ and NCSN++ (Song et al. 2021, App. H), and DDGAN's styled NCSN++.

At CIFAR-10's size, with channels 128, multipliers (1, 2, 2, 2), 4 residual blocks and attention at 16: 61.8 M
parameters without FIR (DDPM++), 62.7 M with it (NCSN++); 106.6 M and 107.5 M with 8 blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma_bench.errors import UsageError
from trilemma_bench.nn.embedding import Conditioning, TimestepEmbedding
from trilemma_bench.nn.layers import group_norm, init_fan_average, init_fan_out, init_zero
from trilemma_bench.nn.resample import FIRDownsample, FIRUpsample, NearestUpsample, fir_filter, normalised
from trilemma_bench.nn.unet import Attention, check_levels

SQRT_HALF = 0.5**0.5


class NCSNpp(nn.Module):
    """Images N×C×H×W, their times and, if style_dim > 0, styles → a prediction of the images' shape; 0 at the start.

    size: H = W. multipliers: width of each level in units of `channels`; the size is halved between two levels.
    attention_resolutions: sizes that get self-attention, as the middle always does. fir: FIR resampling and the
    residual input pyramid of NCSN++; without it, the 2×2 means and nearest neighbours of DDPM++. fourier_scale:
    standard deviation of the frequencies of random Fourier features of the time, in cycles; 0 for sinusoids with
    wavelengths from 2π to 2π·10⁴. style_dim: width of the style that sets gain and bias of every normalisation in the
    residual blocks (Xiao et al. 2022, App. C); 0 for none. times: how many times a sample has, 1 with Fourier features.
    classes: of labels, 0 for none. augmentation: how many numbers tell what was done to an image in training. Raises
    UsageError for a size that cannot be halved so often.
    """

    def __init__(
        self,
        image_channels: int,
        size: int,
        *,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        res_blocks: int = 4,
        attention_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        fir: bool = True,
        fourier_scale: float = 0.0,
        style_dim: int = 0,
        times: int = 1,
        classes: int = 0,
        augmentation: int = 0,
    ) -> None:
        super().__init__()
        check_levels(size, len(multipliers), res_blocks)
        widths = [channels * multiplier for multiplier in multipliers]
        attends = [size >> level in attention_resolutions for level in range(len(widths))]
        block = _BlockFactory(4 * channels, style_dim, dropout)
        if fourier_scale and times > 1:
            raise UsageError("time_fourier_scale: random Fourier features are of one time a sample; choose 0")
        embedding = TimestepEmbedding(
            channels, 4 * channels, times=times, fourier_scale=fourier_scale, augmentation=augmentation
        )
        self.time = Conditioning(embedding, 4 * channels, classes)
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.down, skips = _down_path(block, channels, widths, attends, res_blocks)
        down, up = (FIRDownsample(), FIRUpsample()) if fir else (nn.AvgPool2d(2), NearestUpsample())
        self.halve = nn.ModuleList(block(width, width, down) for width in widths[:-1])
        self.pyramid = _pyramid([image_channels, *widths[:-1]]) if fir else None
        self.middle = nn.ModuleList([block(widths[-1], widths[-1], attention=True), block(widths[-1], widths[-1])])
        self.up = _up_path(block, skips, widths, attends, res_blocks)
        self.enlarge = nn.ModuleList(block(width, width, up) for width in widths[:0:-1])
        self.norm = group_norm(widths[0])
        self.last = nn.Conv2d(widths[0], image_channels, 3, padding=1)
        self.apply(init_fan_average)
        self.apply(_init_silent)
        init_zero(self.last)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        labels: Tensor | None = None,
        style: Tensor | None = None,
        *,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """time: shape (N,), N×times if several, N = 1 where all are the same; labels: int64 N; style: N×style_dim;
        augmentation: N×numbers, None where nothing was done to the images.
        """
        time = self.time(time, labels, augmentation)
        pyramid, h = x, self.first(x)
        skips = [h]
        for level, blocks in enumerate(self.down):
            if level:
                h = self.halve[level - 1](h, time, style)
                if self.pyramid is not None:
                    pyramid = h = (self.pyramid[level - 1](pyramid) + h) * SQRT_HALF
                skips.append(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, time, style)
                skips.append(h)
        for block in self.middle:
            h = block(h, time, style)
        for level, blocks in enumerate(self.up):
            if level:
                h = self.enlarge[level - 1](h, time, style)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], dim=1), time, style)
        return self.last(F.silu(self.norm(h)))


class ResBlock(nn.Module):
    """The 'BigGAN' block: norm – SiLU – resampling – conv – time – norm – SiLU – conv, then (x + h)/√2; may attend."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        resample: nn.Module | None = None,
        *,
        time_dim: int,
        style_dim: int = 0,
        dropout: float = 0.0,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = (
            AdaGN(width, style_dim) if style_dim else group_norm(width) for width in (inputs, outputs)
        )
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_dim, outputs)
        self.dropout = nn.Dropout(dropout)
        self.resample = resample or nn.Identity()
        changes = inputs != outputs or resample is not None
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if changes else nn.Identity()
        self.attention = Attention(outputs) if attention else None

    def forward(self, x: Tensor, time: Tensor, style: Tensor | None = None) -> Tensor:
        styles = () if style is None else (style,)
        h = self.conv1(self.resample(F.silu(self.norm1(x, *styles))))
        h = h + self.time(time)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h, *styles))))
        h = (self.shortcut(self.resample(x)) + h) * SQRT_HALF
        return h if self.attention is None else self.attention(h) * SQRT_HALF


class AdaGN(nn.Module):
    """Group normalisation whose gain and bias come from the style; they start at 1 and 0 for a style of zero."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.style = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gain, bias = self.style(style)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(bias, gain, self.norm(x))


class PyramidConv(nn.Module):
    """N×C×H×W → N×outputs×H/2×W/2: the FIR filter, then a 3×3 convolution of stride 2 (Karras et al. 2020, App. B)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(fir_filter(x, normalised(), padding=2))


class _BlockFactory:
    """What all residual blocks of one network have in common."""

    def __init__(self, time_dim: int, style_dim: int, dropout: float) -> None:
        self.time_dim, self.style_dim, self.dropout = time_dim, style_dim, dropout

    def __call__(
        self, inputs: int, outputs: int, resample: nn.Module | None = None, attention: bool = False
    ) -> ResBlock:
        common = {"time_dim": self.time_dim, "style_dim": self.style_dim}
        return ResBlock(inputs, outputs, resample, dropout=self.dropout, attention=attention, **common)


def _pyramid(widths: Sequence[int]) -> nn.ModuleList:
    """The input, halved again and again: one convolution for each pair of neighbouring widths."""
    return nn.ModuleList(PyramidConv(*pair) for pair in pairwise(widths))


def _down_path(
    block: _BlockFactory, width: int, widths: Sequence[int], attends: Sequence[bool], res_blocks: int
) -> tuple[nn.ModuleList, list[int]]:
    """The blocks of each level from fine to coarse, and the widths of all skip connections in their order."""
    levels, skips = nn.ModuleList(), [width]
    for index, (target, attention) in enumerate(zip(widths, attends, strict=True)):
        skips += [width] if index else []
        inputs = [width] + [target] * (res_blocks - 1)
        levels.append(nn.ModuleList(block(each, target, attention=attention) for each in inputs))
        skips += [target] * res_blocks
        width = target
    return levels, skips


def _up_path(
    block: _BlockFactory, skips: Sequence[int], widths: Sequence[int], attends: Sequence[bool], res_blocks: int
) -> nn.ModuleList:
    """The blocks of each level from coarse to fine; each takes one skip connection, and the last of a level attends."""
    levels, skips, width = nn.ModuleList(), list(skips), widths[-1]
    for target, attention in zip(reversed(widths), reversed(attends), strict=True):
        blocks = nn.ModuleList()
        for index in range(res_blocks + 1):
            blocks.append(block(width + skips.pop(), target, attention=attention and index == res_blocks))
            width = target
        levels.append(blocks)
    return levels


def _init_silent(module: nn.Module) -> None:
    """Residual branches start as zero, queries, keys and values small, styles at gain 1 and bias 0."""
    if isinstance(module, ResBlock):
        init_zero(module.conv2)
    elif isinstance(module, Attention):
        bound = (3 * 0.1 / module.last.in_channels) ** 0.5  # uniform with variance 0.1 / fan_avg
        nn.init.uniform_(module.qkv.weight, -bound, bound)
        init_zero(module.last)
    elif isinstance(module, AdaGN):
        init_fan_out(module.style)
        gain, bias = module.style.bias.detach().chunk(2)
        gain.fill_(1.0)
        bias.fill_(0.0)
