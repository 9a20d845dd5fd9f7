"""The samples of a search as its products take them, in an order in which alike ones meet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma_bench.metrics.search.distances import Space
from trilemma_bench.metrics.search.frames import UNDERFLOW, Frame, frame_of, whole_steps

PART = 128  # samples converted at a time: what they become stays in the cache
DEVICE_PART = 2048
TILT = 1 / 16  # of the way from the centre to a sample: of two clusters, both are as far from the centre itself
FEW_ROWS = 32  # at least, of a band


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def padded(count: int) -> int:
    """The next multiple of 32, which integer products on accelerators ask for."""
    return -(-count // 32) * 32


def part_of(like: Tensor) -> int:
    return PART if like.device.type == "cpu" else DEVICE_PART


class Codes(NamedTuple):
    """Samples in int8, half of their squared lengths, and by how much they differ from them, in search order."""

    values: Tensor
    halves: Tensor
    slack: Tensor


class Side:
    """One set of samples in a frame: prepared once for all searches that it takes part in.

    feature_lengths: float64 N. values: float32 N×D. lengths, error: of values, N, and how far one may be from
    the truth. reach: distances to the centre. order: by about the same, `place`, so that outliers share their tiles,
    and so do the samples of a tight cluster.
    """

    def __init__(self, features: Tensor, feature_lengths: Tensor, frame: Frame) -> None:
        self.features, self.feature_lengths, self.frame = features, feature_lengths, frame
        self.values = frame.values(features)
        plain = self.values is features
        self.lengths = feature_lengths if plain else lengths_of(self.values)
        reach = self._distances(frame.centre)
        some = self.values[reach.argsort()[len(reach) // 2]]
        self.place, self.order = self._distances(torch.lerp(frame.centre, some, TILT)).sort()
        self.reach = reach[self.order]
        rounding = roundoff(torch.float32) * self.lengths + 8 * roundoff(torch.float64) * (self.lengths + frame.offset)
        self.error = torch.zeros_like(rounding) if plain else rounding

    def __len__(self) -> int:
        return len(self.features)

    def _distances(self, point: Tensor) -> Tensor:
        """Of all values to a point, or a little more: float64 N."""
        space, parts = Space(self.values), self.values.split(part_of(self.values))
        return torch.cat([upper_lengths_of(torch.sub(part, point, out=space(*part.shape))) for part in parts])

    def bands(self, rows: slice) -> list[slice]:
        """The rows, cut at gaps that are as wide as `FEW_ROWS` of them on average; the furthest few do not count.

        A band is mostly of a few clusters.
        """
        found = []
        while rows.start < rows.stop:
            some = self.place[rows]
            wide = FEW_ROWS / len(some) * (some[max(0, len(some) - FEW_ROWS)] - some[0])
            great = (some.diff() > wide).nonzero()[:, 0] + 1
            ends = [*great[great >= FEW_ROWS].tolist(), len(some)]
            found.append(slice(rows.start, rows.start + ends[0]))
            rows = slice(found[-1].stop, rows.stop)
        return found

    @cached_property
    def together(self) -> float:
        """The share of pairs of samples that are of one band."""
        return sum(((band.stop - band.start) / len(self)) ** 2 for band in self.bands(slice(0, len(self))))

    @cached_property
    def codes(self) -> Codes:
        (count, dim), (step, centre) = self.values.shape, self.frame.steps
        codes = torch.zeros((padded(count), padded(dim)), dtype=torch.int8, device=self.values.device)
        halves = torch.zeros(count, dtype=torch.int32, device=codes.device)
        slack = torch.zeros(count, dtype=torch.float64, device=codes.device)
        exact = torch.zeros(count, dtype=torch.bool, device=codes.device)
        spaces = [Space(self.values) for _ in range(2)]
        for rows in slices(0, count, part_of(codes)):
            values, rounded = (space(rows.stop - rows.start, dim) for space in spaces)
            torch.index_select(self.values, 0, self.order[rows], out=values).sub_(centre)
            codes[rows, :dim] = whole_steps(values, step, rounded)
            exact[rows] = self._are_codes(rows, rounded)
            slack[rows] = upper_lengths_of(values.sub_(rounded, alpha=step))
            sums = [part.sum(dim=1) for part in rounded.square_().split(1024, dim=1)]  # exact: below 2²⁴
            halves[rows] = torch.stack(sums).double().sum(dim=0).div_(2).floor_().int()
        rounding = 4 * roundoff(torch.float32) * (slack + 128 * step * math.sqrt(dim))
        return Codes(codes, halves, (slack + rounding + self.error[self.order]).masked_fill(exact, 0.0))

    def _are_codes(self, rows: slice, codes: Tensor) -> Tensor | bool:
        """Which samples are their codes to the last bit: those of no other values than the frame's pair."""
        if not self.frame.pair:
            return False
        low, high = self.frame.pair
        features = self.features[self.order[rows]]
        above = features == high
        return (((features == low) | above) & (codes == 2 * above)).all(dim=1)

    def forget_codes(self) -> None:
        """Frees their memory; they are made again when they are asked for."""
        self.__dict__.pop("codes", None)

    def centred(self, rows: slice, out: Tensor) -> Tensor:
        """Samples less the centre, in the order of the search; `out`, float32, takes them."""
        return torch.index_select(self.values, 0, self.order[rows], out=out).sub_(self.frame.centre)

    def around(self, centre: Tensor, rows: slice, out: Tensor) -> Tensor:
        """Samples less a centre in the features' own frame, in the order of the search; `out`, float64, takes them."""
        size, space = part_of(out), Space(self.features)
        for part, values in zip(slices(rows.start, rows.stop, size), out.split(size), strict=True):
            chosen = torch.index_select(self.features, 0, self.order[part], out=space(*values.shape))
            values.copy_(chosen).sub_(centre)
            if self.frame.scale != 1:
                values.div_(self.frame.scale)
        return out


def features_of(samples: Tensor | Side) -> Tensor:
    return samples.features if isinstance(samples, Side) else samples


def side_of(samples: Tensor | Side) -> Side:
    """One set for searches of its own: as it is prepared already where its own frame would serve it no better."""
    if isinstance(samples, Side) and len(samples.frame.some) == 1:
        return samples
    features, lengths = features_of(samples), _lengths(samples)
    own = frame_of((features,), float(lengths.max()))
    return samples if isinstance(samples, Side) and samples.frame.suits(own) else Side(features, lengths, own)


def sides_of(x: Tensor | Side, y: Tensor | Side) -> tuple[Side, Side]:
    """Two sets in one frame, centred on y; as they are where they are prepared so already."""
    if isinstance(x, Side) and isinstance(y, Side) and x.frame is y.frame:
        return x, y
    lengths = [_lengths(each) for each in (x, y)]
    frame = frame_of((features_of(x), features_of(y)), max(float(each.max()) for each in lengths))
    return Side(features_of(x), lengths[0], frame), Side(features_of(y), lengths[1], frame)


def _lengths(samples: Tensor | Side) -> Tensor:
    return samples.feature_lengths if isinstance(samples, Side) else lengths_of(samples)


def lengths_of(values: Tensor) -> Tensor:
    """Lengths of rows in float64. Parts are converted first: a reduction that converts is ten times as slow."""
    space = Space(values, torch.float64)
    parts = values.split(part_of(values))
    return torch.cat([torch.linalg.vector_norm(space(*part.shape).copy_(part), dim=1) for part in parts])


def upper_lengths_of(values: Tensor) -> Tensor:
    """Lengths of rows or a little more, float64: the sum in float32, whose squares may underflow, is the fast one."""
    dim, lengths = values.shape[1], torch.linalg.vector_norm(values, dim=1).double()
    return lengths * (1 + gamma(dim, torch.float32)) + UNDERFLOW * math.sqrt(dim)


def roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def gamma(length: int, dtype: torch.dtype) -> float:
    return length * roundoff(dtype) / (1 - length * roundoff(dtype))
