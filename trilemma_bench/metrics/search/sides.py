"""The samples of a search as its products take them: both sides in one frame, in an order in which alike ones meet."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.search.distances import Space

LARGEST = 1e150  # difference of features whose squares float64 holds
PART = 128  # samples converted at a time: what they become stays in the cache
DEVICE_PART = 2048
TILT = 1 / 16  # of the way from the centre to a sample: of two clusters, both are as far from the centre itself


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def part_of(like: Tensor) -> int:
    return PART if like.device.type == "cpu" else DEVICE_PART


class Side:
    """One side of a search, in one frame with the other: features less `shift`, in units of `scale`, a power of two.

    values: float32 N×D, the features themselves where float32 serves them well. error: N, how far a value may be from
    the truth. centre: what tiles are centred with. reach: distances to it. order: by about the same, `place`, so that
    outliers share their tiles, and so do the samples of a tight cluster.
    """

    def __init__(self, features: Tensor, length: Tensor, mean: Tensor, shift: Tensor, scale: float) -> None:
        self.features, self.shift, self.scale = features, shift, scale
        plain = features.dtype == torch.float32 and scale == 1 and not shift.any()
        self.values = features if plain else torch.cat([
            ((part.double() - shift) / scale).float() for part in features.split(1024)
        ])  # fmt: skip
        self.centre = ((mean - shift) / scale).float()
        self.length = length if plain else lengths_of(self.values)
        reach = self._distances(self.centre)
        some = self.values[reach.argsort()[len(reach) // 2]]
        self.place, self.order = self._distances(torch.lerp(self.centre, some, TILT)).sort()
        self.reach = reach[self.order]
        rounding = roundoff(torch.float32) * self.length + 8 * roundoff(torch.float64) * (self.length + self.offset)
        self.error = torch.zeros_like(rounding) if plain else rounding

    def _distances(self, point: Tensor) -> Tensor:
        """Of all values to a point, or a little more: float64 N."""
        space, parts = Space(self.values), self.values.split(part_of(self.values))
        return torch.cat([upper_lengths_of(torch.sub(part, point, out=space(*part.shape))) for part in parts])

    @property
    def offset(self) -> float:
        return float(self.shift.norm()) / self.scale

    def some(self) -> Tensor:
        """64 samples or a few more, from the nearest to the furthest."""
        return self.values[self.order[:: max(1, len(self.order) // 64)]]

    def centred(self, rows: slice, out: Tensor) -> Tensor:
        """Samples less the centre, in the order of the search; `out`, float32, takes them."""
        return torch.index_select(self.values, 0, self.order[rows], out=out).sub_(self.centre)

    def around(self, centre: Tensor, rows: slice, out: Tensor) -> Tensor:
        """Samples less a centre in the features' own frame, in the order of the search; `out`, float64, takes them."""
        size, space = part_of(out), Space(self.features)
        for part, values in zip(slices(rows.start, rows.stop, size), out.split(size), strict=True):
            chosen = torch.index_select(self.features, 0, self.order[part], out=space(*values.shape))
            values.copy_(chosen).sub_(centre)
            if self.scale != 1:
                values.div_(self.scale)
        return out


def sides_of(x: Tensor, y: Tensor) -> tuple[Side, Side]:
    """Both sides of a search in one frame, centred on y."""
    sides = (y,) if x is y else (x, y)
    lengths = [lengths_of(z) for z in sides]
    some = y[:: -(-len(y) // 256)].double()
    mean = some.mean(dim=0)
    spread = float((some - mean).square().sum(dim=1).mean().sqrt())
    shift, scale = torch.zeros_like(mean), 1.0  # as they are, where their squares are well inside of float32's range
    if not (1e-6 < max(float(length.max()) for length in lengths) < 1e12 and float(mean.norm()) < 3 * spread):
        shift = mean
        furthest = max(float((part.double() - mean).abs().max()) for z in sides for part in z.split(1024))
        if furthest > LARGEST:
            raise TrilemmaError(f"features {furthest:.1e} apart are too far for distances in float64: scale them down")
        scale = 2.0 ** math.ceil(math.log2(furthest * math.sqrt(x.shape[1]))) if furthest else 1.0
    found = [Side(z, length, mean, shift, scale) for z, length in zip(sides, lengths, strict=True)]
    return found[0], found[-1]


def lengths_of(values: Tensor) -> Tensor:
    """Lengths of rows in float64. Parts are converted first: a reduction that converts is ten times as slow."""
    space = Space(values, torch.float64)
    parts = values.split(part_of(values))
    return torch.cat([torch.linalg.vector_norm(space(*part.shape).copy_(part), dim=1) for part in parts])


def upper_lengths_of(values: Tensor) -> Tensor:
    """Lengths of rows or a little more, float64: the sum in float32 is the fast one."""
    return torch.linalg.vector_norm(values, dim=1).double() * (1 + gamma(values.shape[1], torch.float32))


def roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def gamma(length: int, dtype: torch.dtype) -> float:
    return length * roundoff(dtype) / (1 - length * roundoff(dtype))
