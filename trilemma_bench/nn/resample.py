"""FIR resampling of images by two, with the taps [1, 3, 3, 1] of StyleGAN2 and NCSN++ (Zhang 2019; Karras et al. 2020).

The same filter for every channel: a convolution on the CPU; on CUDA, where such a convolution in bfloat16 takes many
times as long as its bytes, a sum of shifted images, of which torch.compile makes one kernel. Both have the second
derivatives that an R1 penalty needs. Pixels beyond the border count as zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Taps = tuple[float, ...]
TAPS: Taps = (1.0, 3.0, 3.0, 1.0)


def normalised(taps: Sequence[float] = TAPS, gain: float = 1.0) -> Taps:
    """`taps` scaled so that their outer product with themselves sums to `gain`."""
    total = sum(taps)
    return tuple(tap * math.sqrt(gain) / total for tap in taps)


def fir_filter(x: Tensor, taps: Taps, stride: int = 1, padding: int = 0) -> Tensor:
    """Filters N×C×H×W with the outer product of the symmetric `taps`, keeping every `stride`-th pixel."""
    if not x.is_cuda:
        return F.conv2d(x, _per_channel(taps, x), stride=stride, padding=padding, groups=x.shape[1])
    return shifted_sums(x, taps, stride, padding)


def shifted_sums(x: Tensor, taps: Taps, stride: int = 1, padding: int = 0) -> Tensor:
    """`fir_filter` along the rows, then along the columns; at least float32 inside."""
    exact = F.pad(x.to(torch.promote_types(x.dtype, torch.float32)), [padding] * 4)
    for dim in (2, 3):
        last = exact.shape[dim] - len(taps)
        shifted = [_every(exact, dim, start, start + last, stride) * tap for start, tap in enumerate(taps)]
        exact = sum(shifted[1:], shifted[0])
    return exact.to(x.dtype)


def doubled(x: Tensor, taps: Taps) -> Tensor:
    """N×C×H×W → N×C×2H×2W: zeros between the pixels, then the filter, as nearest neighbours and a filter that is
    shorter by one: symmetric taps of even number are [1, 1] convolved with another filter.
    """
    rest: list[float] = []
    for tap in taps[:-1]:
        rest.append(tap - (rest[-1] if rest else 0.0))
    nearest = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return shifted_sums(nearest, tuple(rest), padding=len(rest) // 2)


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
        if x.is_cuda:
            return doubled(x, self.taps)
        # A transposed convolution is the convolution of the zero-stuffed image, without storing the zeros.
        padding = len(self.taps) // 2 - 1
        return F.conv_transpose2d(x, _per_channel(self.taps, x), stride=2, padding=padding, groups=x.shape[1])


def _per_channel(taps: Taps, x: Tensor) -> Tensor:
    line = torch.tensor(taps, dtype=x.dtype, device=x.device)
    return torch.outer(line, line).expand(x.shape[1], 1, -1, -1)


def _every(x: Tensor, dim: int, start: int, last: int, stride: int) -> Tensor:
    """The rows (dim 2) or columns (dim 3) start, start + stride … up to `last`."""
    index = slice(start, last + 1, stride)
    return x[:, :, index] if dim == 2 else x[:, :, :, index]
