"""Images moved, turned and scaled: affine maps drawn for each, and their sampling without aliasing.

Images are float N×C×H×W with H = W. A map takes coordinates of the result, from −1 to 1 along each side, to those
of the image that it is made of: N×3×3.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

# the low-pass filter of the orthogonal wavelet 'sym6' (Daubechies 1992), as Karras et al. 2020b have it
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
REACH = len(SYM6) // 2 - 1  # half pixels from a pixel's first half to the first that the filter sees for it


class Draws:
    """Parameters of transformations, N values each, that differ from 'none' with probability p."""

    def __init__(self, images: Tensor, p: Tensor | float) -> None:
        self.like, self.p = images.new_empty(len(images), dtype=torch.float32), torch.as_tensor(p)

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


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """The images through their maps, low-pass filtered on the way (Karras et al. 2020b, App. B).

    Beyond its border an image is its reflection about the outermost pixels' centres, once, and then 0. It is doubled in
    size by the wavelet, sampled bilinearly and halved by it: a map that moves nothing changes nothing. The filters are
    matrices, for images are small. Gradients of every order pass; computed in float32 at least.
    """
    with torch.autocast(images.device.type, enabled=False):
        exact = images.to(torch.promote_types(images.dtype, torch.float32))
        double, halve = (make(exact.shape[-1], exact.dtype, exact.device) for make in (_doubling, _halving))
        # a grid has −1 … 1 between its outermost half pixels, whose middle is `late` beyond the image's
        seen, held, late = (side / (2 * exact.shape[-1]) for side in (halve.shape[1], double.shape[0], 1))
        linear, shift = maps[:, :2, :2], maps[:, :2, 2:]
        theta = torch.cat([seen * linear, shift + late * (linear.sum(dim=2, keepdim=True) - 1)], dim=2) / held
        grid = F.affine_grid(theta, [*exact.shape[:2], halve.shape[1], halve.shape[1]], align_corners=False)
        half_pixels = bilinear(double @ exact @ double.mT, grid.to(exact.dtype))
        return (halve @ half_pixels @ halve.mT).to(images.dtype)


def bilinear(images: Tensor, grid: Tensor) -> Tensor:
    """`torch.nn.functional.grid_sample` with zeros beyond the border, of operations that have second derivatives.

    grid: N×H×W×2, (x, y) from −1 to 1 between the outer edges.
    """
    count, channels, height, width = images.shape
    x, y = (((grid[..., side] + 1) * size - 1) / 2 for side, size in ((0, width), (1, height)))
    total = images.new_zeros(count, channels, grid[0, ..., 0].numel())
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = y.floor() + down, x.floor() + across
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        weight = inside * (1 - (y - row).abs()) * (1 - (x - column).abs())
        index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        pixels = images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, channels, -1))
        total = total + pixels * weight.flatten(1)[:, None]
    return total.unflatten(2, grid.shape[1:3])


@cache
def _doubling(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A side's pixels → the half pixels of it and of its two reflections: 2(3·size − 2) × size."""
    pixels = torch.arange(1 - size, 2 * size - 1)
    halves = torch.arange(2 * (1 - size), 2 * (2 * size - 1))
    inside = size - 1 - (size - 1 - pixels.abs()).abs()
    return (_wavelet(halves, pixels) @ F.one_hot(inside, size).double()).to(device, dtype)


@cache
def _halving(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Half pixels, REACH of them before the side and after it, → its pixels: size × 2(size + REACH)."""
    return _wavelet(torch.arange(-REACH, 2 * size + REACH), torch.arange(size)).mT.to(device, dtype)


def _wavelet(halves: Tensor, pixels: Tensor) -> Tensor:
    """How much of each half pixel is made of each pixel; float64. Half pixel 2i is at pixel i, 2i + 1 after it."""
    tap = halves[:, None] - 2 * pixels + REACH
    taps = torch.tensor(SYM6, dtype=torch.float64)[tap.clamp(0, len(SYM6) - 1)]
    return torch.where((tap >= 0) & (tap < len(SYM6)), taps, 0.0)


def scale(x: Tensor, y: Tensor) -> Tensor:
    """Of coordinates, by x and y (N each): N×3×3, as the next two."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def rotate(angle: Tensor) -> Tensor:
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    return _matrices([[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero], [zero, zero, one]])


def translate(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _matrices(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
