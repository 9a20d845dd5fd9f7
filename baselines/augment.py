"""Augmentations of what a discriminator sees: DiffAugment (Zhao et al. 2020) and ADA (Karras et al. 2020b).

Images are float N×C×H×W in [−1, 1]. Each image gets its own draw; gradients pass through.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """Sets a square of `share` of the side to 0, its centre anywhere in the image."""
    size, half = images.shape[-1], int(images.shape[-1] * share + 0.5) / 2
    centre = torch.floor(torch.rand(len(images), 2, device=images.device) * (size + 1))
    offset = (torch.arange(size, device=images.device) + 0.5 - centre[:, :, None]).abs() < half
    return images * ~(offset[:, 0, None, :, None] & offset[:, 1, None, None, :])


def ada_augment(images: Tensor, p: Tensor) -> Tensor:
    """ADA's pipeline 'bgc': pixel blitting, geometry and colour, each transformation with probability p (scalar).

    From Karras et al. 2020b, App. B; the geometric ones are one affine map, sampled bilinearly with reflected borders
    and without the paper's low-pass filter. R1 belongs on the augmented images: bilinear sampling has no second
    derivative here.
    """
    return torch.where(p > 0, _recolour(_transform(images, p), p), images)


def _transform(images: Tensor, p: Tensor) -> Tensor:
    grid = F.affine_grid(_affine(images, p)[:, :2], list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="reflection", align_corners=False)


def _affine(images: Tensor, p: Tensor) -> Tensor:
    """The map of each image's coordinates in [−1, 1]: N×3×3."""
    draw = _Draws(images, p)
    quarter, shift = torch.floor(4 * draw.uniform(0, 1)), draw.pair(-0.125, 0.125)
    whole = torch.round(shift * images.shape[-1]) * 2 / images.shape[-1]
    stretch = 2 ** draw.normal(0.2)
    before, after = draw.rotation(), draw.rotation()
    parts = [
        _scale(1 - 2 * draw.coin(), torch.ones_like(quarter)),
        _rotate(quarter * math.pi / 2),
        _translate(whole[:, 0], whole[:, 1]),
        _scale(*[2 ** draw.normal(0.2)] * 2),
        _rotate(before),
        _scale(stretch, 1 / stretch),
        _rotate(after),
        _translate(*(2 * draw.normal_pair(0.125)).unbind(dim=1)),
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total @ part
    return total


def _recolour(images: Tensor, p: Tensor) -> Tensor:
    """Brightness and contrast; for three channels also luma flip, hue and saturation: an affine map of each pixel."""
    draw = _Draws(images, p)
    brightness, contrast = draw.normal(0.2), 2 ** draw.normal(0.5)
    x = (images + _each(brightness)) * _each(contrast)
    if images.shape[1] != 3:
        return x
    luma = images.new_full((3,), 3**-0.5)
    along = torch.outer(luma, luma)
    identity = torch.eye(3, device=images.device, dtype=images.dtype)
    flip = identity - 2 * along * draw.coin()[:, None, None]
    hue = _about(luma, draw.uniform(-math.pi, math.pi))
    saturation = along + (identity - along) * (2 ** draw.normal(1.0))[:, None, None]
    return torch.einsum("nij,njhw->nihw", (saturation @ hue @ flip).to(x.dtype), x)


class _Draws:
    """Parameters of transformations, each N values that differ from 'none' with probability p."""

    def __init__(self, images: Tensor, p: Tensor) -> None:
        self.like, self.p = images.new_empty(len(images), dtype=torch.float32), p

    def _applied(self, values: Tensor, share: Tensor | None = None) -> Tensor:
        happens = torch.rand_like(self.like) < (self.p if share is None else share)
        return torch.where(happens, values, 0.0)

    def coin(self) -> Tensor:
        return self._applied((torch.rand_like(self.like) < 0.5).float())

    def normal(self, std: float) -> Tensor:
        return self._applied(std * torch.randn_like(self.like))

    def uniform(self, low: float, high: float) -> Tensor:
        return self._applied(low + (high - low) * torch.rand_like(self.like))

    def pair(self, low: float, high: float) -> Tensor:
        return self._together(low + (high - low) * torch.rand(len(self.like), 2, device=self.like.device))

    def normal_pair(self, std: float) -> Tensor:
        return self._together(std * torch.randn(len(self.like), 2, device=self.like.device))

    def _together(self, values: Tensor) -> Tensor:
        """N×2, of which both happen or neither."""
        return torch.where((torch.rand_like(self.like) < self.p)[:, None], values, 0.0)

    def rotation(self) -> Tensor:
        """Two of these are drawn: together they happen with probability p."""
        angles = math.pi * (2 * torch.rand_like(self.like) - 1)
        return self._applied(angles, share=1 - (1 - self.p).clamp(min=0).sqrt())


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _matrices(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def _rotate(angle: Tensor) -> Tensor:
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    return _matrices([[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero], [zero, zero, one]])


def _translate(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _about(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations of colours about `axis` (Rodrigues): N×3×3."""
    x, y, z = axis
    zero = torch.zeros_like(x)
    cross = torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    identity = torch.eye(3, device=axis.device, dtype=axis.dtype)
    return cos * identity + sin * cross + (1 - cos) * torch.outer(axis, axis)
