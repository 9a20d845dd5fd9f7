"""Augmentations of what a discriminator sees: DiffAugment (Zhao et al. 2020) and ADA (Karras et al. 2020b).

Images are float N×C×H×W in [−1, 1]. Each image gets its own draw; gradients pass through.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.geometry import Draws, rotate, scale, translate, warp


def diff_augment(images: Tensor) -> Tensor:
    """DiffAugment's policy for CIFAR-10: colour, then a square of half the size cut out (Zhao et al. 2020, §4)."""
    return cutout(colour(images))


def colour(images: Tensor) -> Tensor:
    """Brightness ±0.5, saturation ×0…2 about each pixel's mean, contrast ×0.5…1.5 about each image's."""
    draws = torch.rand(len(images), 3, 1, 1, 1, device=images.device, dtype=images.dtype).unbind(dim=1)
    x = images + draws[0] - 0.5
    grey = x.mean(dim=1, keepdim=True)
    x = grey + 2 * draws[1] * (x - grey)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (draws[2] + 0.5) * (x - mean)


def cutout(images: Tensor, share: float = 0.5) -> Tensor:
    """Sets a square of `share` of the side to 0, its centre anywhere in the image: between pixels, or on one."""
    size, hole = images.shape[-1], int(images.shape[-1] * share + 0.5)
    places = size + 1 - hole % 2
    first = torch.floor(torch.rand(len(images), 2, device=images.device) * places) - hole // 2
    within = torch.arange(size, device=images.device) - first[:, :, None]
    cut = (within >= 0) & (within < hole)
    return images * ~(cut[:, 0, None, :, None] & cut[:, 1, None, None, :])


def ada_augment(images: Tensor, p: Tensor) -> Tensor:
    """ADA's pipeline 'bgc': pixel blitting, geometry and colour, each transformation with probability p (scalar).

    From Karras et al. 2020b, App. B. In float32 whatever the autocast; the first two kinds are one map of the image.
    """
    with torch.autocast(images.device.type, enabled=False):
        return torch.where(p > 0, _recolour(warp(images, _affine(images, p)), p), images)


def _affine(images: Tensor, p: Tensor) -> Tensor:
    """The map of each image's coordinates in [−1, 1]: N×3×3."""
    draw = Draws(images, p)
    quarter, shift = torch.floor(4 * draw.uniform(0, 1)), draw.pair(-0.125, 0.125)
    whole = torch.round(shift * images.shape[-1]) * 2 / images.shape[-1]
    stretch = 2 ** draw.normal(0.2)
    before, after = draw.rotation(), draw.rotation()
    parts = [
        scale(1 - 2 * draw.coin(), torch.ones_like(quarter)),
        rotate(quarter * math.pi / 2),
        translate(whole[:, 0], whole[:, 1]),
        scale(*[2 ** draw.normal(0.2)] * 2),
        rotate(before),
        scale(stretch, 1 / stretch),
        rotate(after),
        translate(*(2 * draw.normal_pair(0.125)).unbind(dim=1)),
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total @ part
    return total


def _recolour(images: Tensor, p: Tensor) -> Tensor:
    """Brightness, contrast and luma flip; for three channels also hue and saturation: an affine map of each pixel."""
    draw = Draws(images, p)
    brightness, contrast = draw.normal(0.2), 2 ** draw.normal(0.5)
    x = (images + _each(brightness)) * _each(contrast)
    if images.shape[1] != 3:
        return x * _each(1 - 2 * draw.coin())  # of grey the luma is all there is
    luma = images.new_full((3,), 3**-0.5)
    along = torch.outer(luma, luma)
    identity = torch.eye(3, device=images.device, dtype=images.dtype)
    flip = identity - 2 * along * draw.coin()[:, None, None]
    hue = _about(luma, draw.uniform(-math.pi, math.pi))
    saturation = along + (identity - along) * (2 ** draw.normal(1.0))[:, None, None]
    return torch.einsum("nij,njhw->nihw", (saturation @ hue @ flip).to(x.dtype), x)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _about(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations of colours about `axis` (Rodrigues): N×3×3."""
    x, y, z = axis
    zero = torch.zeros_like(x)
    cross = torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    identity = torch.eye(3, device=axis.device, dtype=axis.dtype)
    return cos * identity + sin * cross + (1 - cos) * torch.outer(axis, axis)
