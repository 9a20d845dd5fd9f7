"""FIR resampling of images by two, with the taps [1, 3, 3, 1] of StyleGAN2 and NCSN++ (Zhang 2019; Karras et al. 2020).

Plain convolutions, one filter for every channel: they run on every device and have the second derivatives that an R1
penalty needs. Pixels beyond the border count as zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = (1.0, 3.0, 3.0, 1.0)


def fir_kernel(taps: Sequence[float] = TAPS, gain: float = 1.0) -> Tensor:
    """The k×k outer product of the symmetric `taps` with themselves, float32, normalised to sum to `gain`."""
    line = torch.tensor(taps, dtype=torch.float32)
    kernel = torch.outer(line, line)
    return kernel * (gain / kernel.sum())


def fir_filter(x: Tensor, kernel: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Filters each channel of N×C×H×W with `kernel` (k×k), keeping every `stride`-th pixel."""
    return F.conv2d(x, _per_channel(kernel, x), stride=stride, padding=padding, groups=x.shape[1])


class FIRDownsample(nn.Module):
    """N×C×H×W → N×C×H/2×W/2, low-pass filtered; `taps` is symmetric and even in number. Holds no state."""

    kernel: Tensor

    def __init__(self, taps: Sequence[float] = TAPS) -> None:
        super().__init__()
        self.padding = len(taps) // 2 - 1
        self.register_buffer("kernel", fir_kernel(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return fir_filter(x, self.kernel, stride=2, padding=self.padding)


class FIRUpsample(nn.Module):
    """N×C×H×W → N×C×2H×2W: zeros between the pixels, then the filter with gain 4. Holds no state."""

    kernel: Tensor

    def __init__(self, taps: Sequence[float] = TAPS) -> None:
        super().__init__()
        self.padding = len(taps) // 2 - 1
        self.register_buffer("kernel", fir_kernel(taps, gain=4.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # A transposed convolution is the convolution of the zero-stuffed image, without storing the zeros.
        return F.conv_transpose2d(x, _per_channel(self.kernel, x), stride=2, padding=self.padding, groups=x.shape[1])


def _per_channel(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
