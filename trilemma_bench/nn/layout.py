"""The layout of images in memory: on CUDA channels come last, as its convolutions want them; elsewhere as they are."""

from __future__ import annotations

from torch import Tensor


def wants_channels_last(x: Tensor) -> bool:
    """Whether blocks should compute in the form that keeps channels last, gradients included."""
    return x.is_cuda
