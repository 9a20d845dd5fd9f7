"""EDM's augmentation of training data (Karras et al. 2022, App. F.2): the network is told what was done to an image.

Samples are drawn as of images that nothing was done to, so that nothing of it leaks into them.
"""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor

from baselines.geometry import Draws, rotate, scale, translate, warp


def told_numbers(upright: bool) -> int:
    """How many numbers `edm_augment` tells of an image."""
    return 6 if upright else 9


def edm_augment(images: Tensor, p: float, upright: bool = False) -> tuple[Tensor, Tensor]:
    """Images N×C×H×W, each mirrored by a coin and all else done with probability p; and what was done, N×9.

    Scaled (told: log2 in units of 0.2); stretched along an axis, half the time the horizontal (log2 in units of 0.2,
    times the axis's cosine and sine); shifted (x and y in eighths of the image); mirrored; upended; turned (cos − 1,
    sin). All are 0 where nothing was done. upright: without the last two, N×6. In float32 whatever the autocast.
    """
    with torch.autocast(images.device.type, enabled=False):
        draw, always, half = Draws(images, p), Draws(images, 1.0), Draws(images, 0.5)
        scaled, stretched, shifted = draw.normal(1.0), draw.normal(1.0), draw.normal_pair(1.0)
        axis, mirrored = half.uniform(-math.pi, math.pi), always.coin()
        told = [scaled, stretched * axis.cos(), stretched * axis.sin(), *shifted.unbind(dim=1), mirrored]
        shrink, squeeze = 2 ** (-0.2 * scaled), 2 ** (-0.2 * stretched)
        maps = [
            scale(shrink, shrink),
            rotate(-axis) @ scale(squeeze, 1 / squeeze) @ rotate(axis),
            translate(*(-shifted / 4).unbind(dim=1)),
        ]
        images = torch.where(_each(mirrored), images.flip(3), images)
        if not upright:
            upended, turned = draw.coin(), draw.uniform(-math.pi, math.pi)
            images = torch.where(_each(upended), images.flip(2), images)
            maps.insert(1, rotate(turned))
            told += [upended, turned.cos() - 1, turned.sin()]
        return warp(images, reduce(torch.matmul, maps)), torch.stack(told, dim=1)


def _each(happens: Tensor) -> Tensor:
    return happens[:, None, None, None] > 0
