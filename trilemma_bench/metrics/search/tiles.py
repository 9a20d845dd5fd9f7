"""Tiles: the pairs of some rows and some columns, whose scores are held at a time, and what these say at a glance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from trilemma_bench.metrics.search.sides import slices

TILE = (1024, 2560)  # distances held at a time, 10 MiB: found by trial on two CPUs
DEVICE_TILE = (2048, 4096)
CROWDED_BEFORE = 0.125  # share of pairs to list from which a finer product is cheaper: most are never measured
EVERY = 16  # of so many rows, one tells whether a tile or a block is crowded
GROUP = 32  # at most so many samples of which only the nearest counts when radii are bounded from above


def shape(features: Tensor, block: int | None) -> tuple[int, int]:
    """Rows and columns of a tile: `block` of each, or what suits the features' device."""
    return (block, block) if block else TILE if features.device.type == "cpu" else DEVICE_TILE


def between(count: int, others: int, shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles of all pairs of two sets."""
    for rows in slices(0, count, shape[0]):
        for columns in slices(0, others, shape[1]):
            yield rows, columns


def within(count: int, shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles of one set's pairs whose second index is the greater one.

    Those of samples that follow each other come first, and so all samples soon have neighbours that are near. Rows are
    cut evenly: a last few, whose nearest among themselves are far away, would call for a finer product.
    """
    parts = _evenly(count, shape[0])
    yield from zip(parts, parts, strict=True)
    for rows in parts:
        for columns in slices(rows.stop, count, shape[1]):
            yield rows, columns


def _evenly(count: int, most: int) -> list[slice]:
    """Parts of at most `most` samples, which begin at multiples of 32 where `most` is one: see `sides.padded`."""
    unit = 32 if most % 32 == 0 else 1
    units, parts = -(-count // unit), -(-count // most)
    starts = [unit * (units * part // parts) for part in range(parts)]
    return [slice(*ends) for ends in pairwise([*starts, count])]


def size(rows: slice, columns: slice) -> int:
    return (rows.stop - rows.start) * (columns.stop - columns.start)


def past(values: Tensor, rows: slice, columns: slice) -> Tensor:
    """Which of a tile's pairs have a second index that is not the greater one."""
    return torch.ones_like(values, dtype=torch.bool).tril_(rows.start - columns.start)


def best(scores: Tensor, k: int, dim: int) -> Tensor:
    """The k greatest scores along a dimension, or a little less: of each group of others, the greatest only."""
    size = max(1, min(GROUP, scores.shape[dim] // (8 * k)))
    groups = scores.shape[dim] // size
    greatest = scores.narrow(dim, 0, groups * size).unflatten(dim, (size, groups)).amax(dim=dim)
    return greatest.topk(min(k, groups), dim=dim).values


def crowded(scores: Tensor, cut_x: Tensor, cut_y: Tensor) -> bool:
    """Whether so many of a tile's scores reach a cut that they are better not listed."""
    reached = scores[::EVERY] >= torch.minimum(cut_x[::EVERY, None], cut_y)
    return int(reached.count_nonzero()) > CROWDED_BEFORE * reached.numel()


def by_block(i: Tensor, j: Tensor, rows: list[slice], columns: list[slice]) -> list[int]:
    """How many of a tile's pairs, given by position in it, are of each band of rows, by each of columns."""
    block = _band_of(i, rows) * len(columns) + _band_of(j, columns)
    return torch.bincount(block, minlength=len(rows) * len(columns)).tolist()


def _band_of(index: Tensor, bands: list[slice]) -> Tensor:
    """Which band each sample is of, given by its position in the first to the last."""
    ends = torch.tensor([band.stop - bands[0].start for band in bands], device=index.device)
    return torch.searchsorted(ends, index, right=True)


def part_of(part: slice, whole: slice) -> slice:
    """A part of a range, by position in it."""
    return slice(part.start - whole.start, part.stop - whole.start)


def reaching(scores: Tensor, cut_x: Tensor, cut_y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the scores that reach the row's or the column's cut: few groups have one that does."""
    size = math.gcd(16, scores.shape[1])
    parts, cuts = scores.unflatten(1, (size, -1)), cut_y.view(size, -1)  # a group's columns lie far apart: faster
    i, group = (parts.amax(dim=1) >= torch.minimum(cut_x[:, None], cuts.amin(dim=0))).nonzero().unbind(dim=1)
    found, part = (parts[i, :, group] >= torch.minimum(cut_x[i, None], cuts.mT[group])).nonzero().unbind(dim=1)
    return i[found], part * cuts.shape[1] + group[found]
