"""FIR resampling of images by two, with the taps [1, 3, 3, 1] of StyleGAN2 and NCSN++ (Zhang 2019; Karras et al. 2020).

The same filter for every channel: a convolution on the CPU; on CUDA, where such a convolution in bfloat16 takes many
times as long as its bytes, a sum of shifted images, of which torch.compile makes one kernel. Both have the second
derivatives that an R1 penalty needs. Pixels beyond the border count as zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma_bench.nn.layout import wants_channels_last

Taps = tuple[float, ...]
TAPS: Taps = (1.0, 3.0, 3.0, 1.0)


def normalised(taps: Sequence[float] = TAPS, gain: float = 1.0) -> Taps:
    """`taps` scaled so that their outer product with themselves sums to `gain`."""
    total = sum(taps)
    return tuple(tap * math.sqrt(gain) / total for tap in taps)


def fir_filter(x: Tensor, taps: Taps, stride: int = 1, padding: int = 0) -> Tensor:
    """Filters N×C×H×W with the outer product of the symmetric `taps`, keeping every `stride`-th pixel."""
    if not wants_channels_last(x):
        return F.conv2d(x, _per_channel(taps, x), stride=stride, padding=padding, groups=x.shape[1])
    return shifted_sums(x, taps, stride, padding)


def shifted_sums(x: Tensor, taps: Taps, stride: int = 1, padding: int = 0) -> Tensor:
    """`fir_filter` along the rows, then along the columns; at least float32 inside."""
    y = _channels_last(x, padding)
    for dim in (1, 2):
        last = y.shape[dim] - len(taps)
        y = _sum(_every(y, dim, start, start + last, stride) * tap for start, tap in enumerate(taps))
    return y.permute(0, 3, 1, 2).to(x.dtype)


def doubled(x: Tensor, taps: Taps) -> Tensor:
    """N×C×H×W → N×C×2H×2W: zeros between the pixels, then the filter, an even number of taps.

    Pixels 2i and 2i + 1 are two filters of every other tap, around pixel i, so that no zero is ever multiplied.
    """
    half = len(taps) // 2
    reach = half // 2
    y = _channels_last(x, reach)
    for dim in (1, 2):
        size = y.shape[dim] - 2 * reach
        y = torch.stack([
            _sum(
                taps[centre - 2 * shift] * y.narrow(dim, reach + shift, size)
                for shift in range(-reach, reach + 1)
                if 0 <= centre - 2 * shift < len(taps)
            )
            for centre in (half - 1, half)
        ], dim=dim + 1).flatten(dim, dim + 1)  # fmt: skip
    return y.permute(0, 3, 1, 2).to(x.dtype)


class NearestUpsample(nn.Module):
    """N×C×H×W → N×C×2H×2W, each pixel four times. Holds no state.

    On CUDA by views: the gradient of torch's own kernel is a scattered sum where it is compiled.
    """

    def forward(self, x: Tensor) -> Tensor:
        return repeated(x) if wants_channels_last(x) else F.interpolate(x, scale_factor=2.0, mode="nearest")


def repeated(x: Tensor) -> Tensor:
    """Each pixel of N×C×H×W four times."""
    count, channels, height, width = x.shape
    wide = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
    return wide.reshape(count, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class FIRDownsample(nn.Module):
    """N×C×H×W → N×C×H/2×W/2, low-pass filtered; `taps` is symmetric and even in number. Holds no state."""

    def __init__(self, taps: Sequence[float] = TAPS) -> None:
        super().__init__()
        self.taps = normalised(taps)

    def forward(self, x: Tensor) -> Tensor:
        return fir_filter(x, self.taps, stride=2, padding=len(self.taps) // 2 - 1)


class FIRUpsample(nn.Module):
    """N×C×H×W → N×C×2H×2W: zeros between the pixels, then the filter with gain 4. Holds no state."""

    def __init__(self, taps: Sequence[float] = TAPS) -> None:
        super().__init__()
        self.taps = normalised(taps, gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        if wants_channels_last(x):
            return doubled(x, self.taps)
        # A transposed convolution is the convolution of the zero-stuffed image, without storing the zeros.
        padding = len(self.taps) // 2 - 1
        return F.conv_transpose2d(x, _per_channel(self.taps, x), stride=2, padding=padding, groups=x.shape[1])


def _per_channel(taps: Taps, x: Tensor) -> Tensor:
    line = torch.tensor(taps, dtype=x.dtype, device=x.device)
    return torch.outer(line, line).expand(x.shape[1], 1, -1, -1)


def _channels_last(x: Tensor, padding: int) -> Tensor:
    """x, N×C×H×W, as N×H×W×C with zeros around it, at least float32: all that is made of it, gradients too, then has
    its channels last in memory, as the convolutions before and after want it.
    """
    exact = x.permute(0, 2, 3, 1).to(torch.promote_types(x.dtype, torch.float32))
    return F.pad(exact, [0, 0] + [padding] * 4)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, terms)


def _every(x: Tensor, dim: int, start: int, last: int, stride: int) -> Tensor:
    """The rows (dim 1) or columns (dim 2) start, start + stride … up to `last`, of N×H×W×C."""
    index = slice(start, last + 1, stride)
    return x[:, index] if dim == 1 else x[:, :, index]
