"""The resizes of uint8 images that published metrics use: they differ, and so do the numbers that come after them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def tf1_bilinear(images: Tensor, size: int) -> Tensor:
    """TensorFlow 1's bilinear resize, which samples at i·(side / size) without half-pixel centres or antialiasing.

    images: float N×C×H×W. Gives N×C×size×size in channels-last order, as torch-fidelity's
    `interpolate_bilinear_2d_like_tensorflow1x` does within rounding, but one side after the other.
    """
    pixels = images.permute(0, 2, 3, 1).contiguous()
    for dim in (2, 1):
        low, high, weight = _tf1_taps(pixels.shape[dim], size, images.device)
        weight = weight.view([-1 if axis == dim else 1 for axis in range(4)])
        pixels = torch.lerp(pixels.index_select(dim, low), pixels.index_select(dim, high), weight)
    return pixels.permute(0, 3, 1, 2)


def _tf1_taps(side: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `size` pixels: the two of `side` that it lies between, and the share of the second."""
    position = torch.arange(size, dtype=torch.float32) * torch.tensor(side / size, dtype=torch.float32)
    low = position.long()
    return low.to(device), (low + 1).clamp_max(side - 1).to(device), (position - low).to(device)


def bicubic(images: Tensor, size: int) -> Tensor:
    """Pillow's bicubic resize (antialiased, a = −0.5) of each channel in float, cut to 0…255, as clean-fid has it.

    images: uint8 or float N×C×H×W in 0…255. Gives float32 N×C×size×size.
    """
    return _bicubic(images.double(), size, size).clamp(0, 255).float()


def bicubic_uint8(images: Tensor, size: int) -> Tensor:
    """Pillow's bicubic resize of uint8 images, which rounds to whole levels after each of its two passes.

    images: uint8 N×C×H×W. Gives float32 N×C×size×size of whole levels; as Pillow computes in fixed point, a level in
    some thousands differs by one.
    """
    across = _levels(_bicubic(images.double(), images.shape[2], size))
    return _levels(_bicubic(across, size, size)).float()


def _bicubic(images: Tensor, height: int, width: int) -> Tensor:
    # In float32, torch finds a pixel's neighbours inexactly: up to 0.007 of 255 away from Pillow near the same size.
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True)


def _levels(images: Tensor) -> Tensor:
    return (images + 0.5).floor_().clamp_(0, 255)


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(images / 255 − mean) / std, channel by channel: images in 0…255, float N×C×H×W."""
    centre, scale = (255 * torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))
    return (images.float() - centre) / scale
