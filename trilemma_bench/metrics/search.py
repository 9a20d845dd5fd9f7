"""Which samples are near each other: exact, at a fraction of the price of all their distances.

A matrix product in the cheapest arithmetic that serves (int8 or bfloat16 where the processor multiplies them fast,
else float32, else float64) first bounds every distance from both sides. Pairs whose bounds leave a question open are
measured one by one, and what rounding could still change is decided on the direct form |x − y| in float64. The answers
therefore depend neither on the blocks nor on the arithmetic that found them.

The bounds are rigorous. int8: x = s·q + e with |e| known for each sample, so | |x − y| − s·|q − p| | ≤ |e_x| + |e_y| by
the triangle inequality, and integer products are exact. Floating point of unit roundoff u: an inner product of length D
errs by at most γ·|x||y|, γ = D·u / (1 − D·u), in whatever order it is summed (Higham 2002, section 3.1). bfloat16 is
both: samples are rounded, and float32 sums their exact products.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.precision import matmul_precision

TILE = (1024, 2560)  # distances held at a time, 10 MiB: found by trial on two CPUs
DEVICE_TILE = (2048, 4096)
SMALL = 2**28  # multiplications under which float64 is fast enough
POOL = 2**18  # candidates for neighbours held before they are measured one by one: 8 MiB
CROWDED = 0.06  # share of a tile's pairs left open from which a finer product is cheaper than single pairs
CROWDED_BEFORE = 0.25  # the same while the radii are not known: most of these pairs are never measured
PART = 128  # samples converted at a time: what they become stays in the cache
DEVICE_PART = 2048
GROUP = 32  # at most so many samples of which only the nearest counts when radii are bounded from above
TRUST = 0.125  # share of the worst case of rounding to int8 that a first search for neighbours reckons with
DIRECT = 2**18  # float64 coordinates of single pairs held at a time, 2 MiB; 8 times as many on a device


class Pairs(NamedTuple):
    """Pairs of samples (int64 P each) and bounds on their distances (float64 P each)."""

    first: Tensor
    second: Tensor
    lower: Tensor
    upper: Tensor

    def at(self, chosen: Tensor) -> Pairs:
        return Pairs(*(column[chosen] for column in self))


def nearest_distances(features: Tensor, k: int, block: int | None = None) -> Tensor:
    """Distances of each sample to its k nearest others, ascending.

    features: N×D. Returns float64 N×k. block: samples worked on at a time; it changes memory, never the result.
    Raises TrilemmaError when there are fewer than k + 1 samples.
    """
    return _nearest(features, k, block, last_only=False)


def kth_distances(features: Tensor, k: int, block: int | None = None) -> Tensor:
    """The last column of `nearest_distances`, float64 N, for less: what is surely nearer need not be decided."""
    return _nearest(features, k, block, last_only=True)[:, -1]


def _nearest(features: Tensor, k: int, block: int | None, last_only: bool) -> Tensor:
    if (count := len(features)) < k + 1:
        raise TrilemmaError(f"the distance to neighbour k={k} needs at least k+1={k + 1} samples, got {count}")
    if not k:
        return torch.zeros((count, 0), dtype=torch.float64, device=features.device)
    search, tile = _Search(features, features), _tile(features, block)
    found = _neighbours(search, k, tile, TRUST, last_only)
    return found if bool(found.isfinite().all()) else _neighbours(search, k, tile, 1.0, last_only)


def _neighbours(search: _Search, k: int, tile: tuple[int, int], trust: float, last_only: bool) -> Tensor:
    """Distances to the k nearest others, N×k; infinite where radii that were taken on trust were too small.

    last_only: the k-th is exact, the others are bounds from above.
    """
    count, device = len(search.x.features), search.x.features.device
    nearest = torch.full((count, k), torch.inf, dtype=torch.float64, device=device)  # the pairs to look at are nearer
    pool, measured = [_no_pairs(device)], _no_pairs(device)
    for rows, columns in _tiles(count, count, tile, half=True):
        found, nearest = search.candidates(rows, columns, nearest, trust)
        pool.append(found)
        if sum(len(pairs.first) for pairs in pool) > POOL:
            pool = [_near(_join(pool), nearest)]  # the bounds have tightened since, often enough to go on
        if len(pool[0].first) > 0.75 * POOL:
            measured, nearest = search.narrow(_join([measured, search.measure(pool[0])]), nearest)
            pool = [_no_pairs(device)]
    measured, nearest = search.narrow(_join([measured, search.measure(_near(_join(pool), nearest))]), nearest)
    return search.neighbours(measured, nearest, last_only)


def close_pairs(
    points: Tensor, centres: Tensor, around_points: Tensor, around_centres: Tensor, block: int | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All pairs within one of the radii: indices of the points, of the centres (int64), and distances (float64).

    points: N×D; centres: M×D; around_points: radii R×N; around_centres: radii R'×M; a radius below 0 holds nothing.
    A distance compares with each radius of its pair as the exact one does; it may differ from it otherwise. Pairs that
    lie outside of all radii may come too. block: as in `nearest_distances`.
    """
    search = _Search(points, centres)
    for rows, columns in _tiles(len(points), len(centres), _tile(points, block)):
        yield search.decided(rows, columns, around_points, around_centres)


def direct_distances(x: Tensor, y: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """|x − y| of single pairs in float64, always summed in the same order: what decides every tie."""
    size = max(1, (DIRECT if x.device.type == "cpu" else 8 * DIRECT) // x.shape[1])
    rows, others = _DoubleRows(x), _DoubleRows(y)
    result = torch.empty(len(first), dtype=torch.float64, device=x.device)
    for i, j, found in zip(first.split(size), second.split(size), result.split(size), strict=True):
        pairs = rows(i)[:, None], others(j)[:, None]
        found.copy_(torch.cdist(*pairs, compute_mode="donot_use_mm_for_euclid_dist")[:, 0, 0])
    return result


class _Space:
    """Memory for a matrix, kept from one to the next: fresh memory takes longer to come by than to fill."""

    def __init__(self, like: Tensor, dtype: torch.dtype | None = None) -> None:
        self._held = torch.empty(0, dtype=dtype or like.dtype, device=like.device)

    def __call__(self, rows: int, columns: int) -> Tensor:
        if self._held.numel() < rows * columns:
            self._held = self._held.new_empty(rows * columns)
        return self._held[: rows * columns].view(rows, columns)


class _DoubleRows:
    """Chosen rows in float64, each time in the same memory."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.chosen, self.doubles = values, _Space(values), _Space(values, torch.float64)

    def __call__(self, index: Tensor) -> Tensor:
        shape = len(index), self.values.shape[1]
        return self.doubles(*shape).copy_(torch.index_select(self.values, 0, index, out=self.chosen(*shape)))


def _tile(features: Tensor, block: int | None) -> tuple[int, int]:
    return (block, block) if block else TILE if features.device.type == "cpu" else DEVICE_TILE


def _tiles(count: int, others: int, tile: tuple[int, int], half: bool = False) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of all tiles; `half`: those that hold pairs whose second index is the greater one."""
    for rows in _slices(0, count, tile[0]):
        for columns in _slices(rows.start if half else 0, others, tile[1]):
            yield rows, columns


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def _part(like: Tensor) -> int:
    return PART if like.device.type == "cpu" else DEVICE_PART


def _no_pairs(device: torch.device) -> Pairs:
    index = torch.zeros(0, dtype=torch.int64, device=device)
    return Pairs(index, index, index.double(), index.double())


def _join(parts: list[Pairs]) -> Pairs:
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _near(pairs: Pairs, nearest: Tensor) -> Pairs:
    """The pairs that can still be among the nearest of one of the two."""
    radius = nearest[:, -1]
    return pairs.at(pairs.lower <= torch.maximum(radius[pairs.first], radius[pairs.second]))


class _Samples:
    """One side of a search, in one frame with the other: features less `shift`, in units of `scale`, a power of two.

    values: float32 N×D, the features themselves where float32 serves them well. error: N, how far a value may be from
    the truth. centre: what tiles are centred with. order: by distance to the centre; outliers share their tiles.
    """

    def __init__(self, features: Tensor, length: Tensor, mean: Tensor, shift: Tensor, scale: float) -> None:
        self.features, self.shift, self.scale = features, shift, scale
        plain = features.dtype == torch.float32 and scale == 1 and not shift.any()
        self.values = features if plain else torch.cat([
            ((part.double() - shift) / scale).float() for part in features.split(1024)
        ])  # fmt: skip
        self.centre = ((mean - shift) / scale).float()
        self.length = length if plain else _lengths(self.values)
        space, parts = _Space(self.values), self.values.split(_part(features))
        reach = torch.cat([_upper_lengths(torch.sub(part, self.centre, out=space(*part.shape))) for part in parts])
        self.order = reach.argsort()
        self.reach = reach[self.order]
        rounding = _unit(torch.float32) * self.length + 8 * _unit(torch.float64) * (self.length + self.offset)
        self.error = torch.zeros_like(rounding) if plain else rounding

    @property
    def offset(self) -> float:
        return float(self.shift.norm()) / self.scale

    def some(self) -> Tensor:
        """64 samples or a few more, from the nearest to the furthest."""
        return self.values[self.order[:: max(1, len(self.order) // 64)]]

    def centred(self, rows: slice, out: Tensor) -> Tensor:
        """Samples less the centre, in the order of the search; `out` takes them and says how precise they are."""
        chosen = self.order[rows]
        if out.dtype == torch.float32:
            return torch.index_select(self.values, 0, chosen, out=out).sub_(self.centre)
        return out.copy_(self.features[chosen]).sub_(self.shift).div_(self.scale).sub_(self.centre)


def _samples(x: Tensor, y: Tensor) -> tuple[_Samples, _Samples]:
    """Both sides of a search in one frame, centred on y."""
    sides = (y,) if x is y else (x, y)
    lengths = [_lengths(z) for z in sides]
    some = y[:: -(-len(y) // 256)].double()
    mean = some.mean(dim=0)
    spread = float((some - mean).square().sum(dim=1).mean().sqrt())
    shift, scale = torch.zeros_like(mean), 1.0  # as they are, where their squares are well inside of float32's range
    if not (1e-6 < max(float(length.max()) for length in lengths) < 1e12 and float(mean.norm()) < 3 * spread):
        shift = mean
        furthest = max(float((part.double() - mean).abs().max()) for z in sides for part in z.split(1024))
        scale = 2.0 ** math.ceil(math.log2(furthest * math.sqrt(x.shape[1]))) if furthest else 1.0
    found = [_Samples(z, length, mean, shift, scale) for z, length in zip(sides, lengths, strict=True)]
    return found[0], found[-1]


def _lengths(values: Tensor) -> Tensor:
    """Lengths of rows in float64. Parts are converted first: a reduction that converts is ten times as slow."""
    space = _Space(values, torch.float64)
    parts = values.split(_part(values))
    return torch.cat([torch.linalg.vector_norm(space(*part.shape).copy_(part), dim=1) for part in parts])


def _upper_lengths(values: Tensor) -> Tensor:
    """Lengths of rows or a little more, float64: the sum in float32 is the fast one."""
    return torch.linalg.vector_norm(values, dim=1).double() * (1 + _gamma(values.shape[1], torch.float32))


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def _gamma(length: int, dtype: torch.dtype) -> float:
    return length * _unit(dtype) / (1 - length * _unit(dtype))


class _Product:
    """Scores of tiles: −d²/2 in units of `unit`, up to known errors: each side adds its `slack` to d, `blur` to d²."""

    dtype: torch.dtype
    unit = 1.0
    sides: tuple[_Samples, _Samples]
    slack: list[Tensor]
    blur: list[Tensor]

    def scores(self, rows: slice, columns: slice) -> Tensor:
        raise NotImplementedError

    def bounds(self, scores: Tensor, slack: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds on d from the scores, for the sums of both sides' slack and blur; never below 0."""
        squares = scores.double() * (-2 * self.unit)
        lower = (squares - blur).clamp_(min=0).sqrt_().sub_(slack).clamp_(min=0)
        return lower, squares.add_(blur).clamp_(min=0).sqrt_().add_(slack)

    def cut(self, radius: Tensor, slack: Tensor, blur: Tensor) -> Tensor:
        """The score that every pair within the radius reaches."""
        cut = ((radius + slack).square() + blur) * (1 + 1e-9) / (-2 * self.unit)
        cut = torch.where(radius < 0, torch.inf, cut)
        if self.dtype == torch.int32:
            return (cut.floor() - 1).clamp_(1 - 2.0**31, 2.0**31 - 1).to(torch.int32)
        return (cut - cut.abs() * 4 * _unit(self.dtype)).nan_to_num(nan=torch.inf, posinf=torch.inf).to(self.dtype)

    @property
    def lowest(self) -> float:
        """The score of a pair that does not count."""
        return -(2**31) if self.dtype == torch.int32 else -math.inf


class _FloatProduct(_Product):
    """Scores in float32 or float64. Tiles are centred and converted as they come, which spares the memory.

    bfloat16: the samples are rounded to it, and their products summed in float32.
    """

    def __init__(self, sides: tuple[_Samples, _Samples], dtype: torch.dtype) -> None:
        self.sides, self.stored = sides, dtype
        self.dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self._spaces = [_Space(sides[0].values, self.dtype) for _ in range(3)]
        self._rows, self._x = slice(0, 0), self._spaces[0](0, 0)  # those of the last tile: mostly the next one's, too
        both = [self._facts(side) for side in (sides[:1] if sides[0] is sides[1] else sides)]
        self.halves, self.slack, self.blur = (list(parts) for parts in zip(*(both * 2)[:2], strict=True))

    def _facts(self, side: _Samples) -> tuple[Tensor, Tensor, Tensor]:
        """Half of the squared lengths, slack and blur of samples in search order, N each."""
        u, (count, dim), space = _unit(self.dtype), side.values.shape, _Space(side.values, self.dtype)
        if self.dtype == torch.float32:
            slack = 2 * u * side.reach + side.error[side.order]
        else:
            slack = 8 * u * (side.reach + side.length[side.order] + side.offset)
        halves = torch.empty_like(slack)
        for rows in _slices(0, count, _part(slack)):
            values = side.centred(rows, space(rows.stop - rows.start, dim))
            stored = values.to(self.stored).to(self.dtype)
            halves[rows] = _lengths(stored).square_().div_(2)
            slack[rows] += _upper_lengths(values - stored)
        sums = dim if self.stored == torch.float32 else 2 * dim  # bfloat16: some processors do not round to nearest
        return halves.to(self.dtype), slack, 1.02 * (_gamma(sums, self.dtype) + 8 * u) * side.reach.square() + 1e-30

    def _tile(self, side: int, rows: slice) -> Tensor:
        values = self._spaces[side](rows.stop - rows.start, self.sides[side].values.shape[1])
        size = _part(values)
        for part, out in zip(_slices(rows.start, rows.stop, size), values.split(size), strict=True):
            out.copy_(self.sides[side].centred(part, out).to(self.stored))
        return values

    def scores(self, rows: slice, columns: slice) -> Tensor:
        if rows != self._rows:
            self._rows, self._x = rows, self._tile(0, rows)
        y = self._tile(1, columns)
        with matmul_precision("medium" if self.stored == torch.bfloat16 else "highest"):
            scores = torch.mm(self._x, y.mT, out=self._spaces[2](len(self._x), len(y)))
        return scores.sub_(self.halves[0][rows, None]).sub_(self.halves[1][columns])


class _IntegerProduct(_Product):
    """Scores in int32 from samples rounded to int8. `unit` is the square of one step."""

    dtype = torch.int32

    def __init__(self, sides: tuple[_Samples, _Samples]) -> None:
        self.sides = sides
        step, centre = _best_step([side.some() for side in sides], sides[1].centre)
        self.unit = step * step
        both = [_rounded(side, step, centre) for side in (sides[:1] if sides[0] is sides[1] else sides)]
        self.codes, self.halves, self.slack = (list(parts) for parts in zip(*(both * 2)[:2], strict=True))
        self.blur = [torch.full_like(slack, self.unit) for slack in self.slack]  # halves are rounded down
        self._space = _Space(self.halves[0])

    def scores(self, rows: slice, columns: slice) -> Tensor:
        x, y = (codes[part.start : _up(part.stop)] for codes, part in zip(self.codes, (rows, columns), strict=True))
        scores = torch._int_mm(x, y.mT, out=self._space(len(x), len(y)))
        scores = scores[: rows.stop - rows.start, : columns.stop - columns.start]
        return scores.sub_(self.halves[0][rows, None]).sub_(self.halves[1][columns])


def _up(count: int) -> int:
    """The next multiple of 32, which integer products on accelerators ask for."""
    return -(-count // 32) * 32


def _best_step(samples: list[Tensor], centre: Tensor) -> tuple[float, Tensor]:
    """The step of int8 codes that loses least: a smaller one is finer, but cuts off more of the largest values.

    Comes with the centre in whole steps: features that are exactly 0, as after a ReLU, then lose nothing.
    """
    largest = max(float((z - centre).abs().max()) for z in samples) or 1.0

    def lost(step: float) -> float:
        parts = (z - _in_steps(centre, step) for z in samples)
        return sum(float(part.sub_(_whole_steps(part, step), alpha=step).norm()) for part in parts)

    steps = [largest / 127 * share for share in (1.0, 0.8, 0.6, 0.45, 0.34, 0.25, 0.19, 0.14, 0.1)]
    best = min(steps, key=lost)
    return best, _in_steps(centre, best)


def _in_steps(centre: Tensor, step: float) -> Tensor:
    return (centre / step).round_().mul_(step)


def _whole_steps(values: Tensor, step: float, out: Tensor | None = None) -> Tensor:
    return torch.div(values, step, out=out).round_().clamp_(-127, 127)


def _rounded(side: _Samples, step: float, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """int8 codes, half of their squared lengths, and by how much the samples differ from them, in search order."""
    count, dim = side.values.shape
    codes = torch.zeros((_up(count), _up(dim)), dtype=torch.int8, device=side.values.device)
    halves = torch.zeros(count, dtype=torch.int32, device=codes.device)
    slack = torch.zeros(count, dtype=torch.float64, device=codes.device)
    spaces = [_Space(side.values) for _ in range(2)]
    for rows in _slices(0, count, _part(codes)):
        values, rounded = (space(rows.stop - rows.start, dim) for space in spaces)
        torch.index_select(side.values, 0, side.order[rows], out=values).sub_(centre)
        codes[rows, :dim] = _whole_steps(values, step, rounded)
        slack[rows] = _upper_lengths(values.sub_(rounded, alpha=step))
        sums = [part.sum(dim=1) for part in rounded.square_().split(1024, dim=1)]  # exact: below 2²⁴
        halves[rows] = torch.stack(sums).double().sum(dim=0).div_(2).floor_().int()
    rounding = 8 * _unit(torch.float32) * (side.reach + slack + step * math.sqrt(dim))
    return codes, halves, slack + rounding + side.error[side.order]


@lru_cache
def _fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of int8 or bfloat16 are exact here, and 1.5 times as fast as float32's; measured once, 40 ms."""
    extremes = torch.full((512, 1024), 127, dtype=dtype, device=device)
    floats = extremes.float()

    def exact() -> Tensor:
        return floats @ floats.mT

    def coarse() -> Tensor:
        if dtype == torch.int8:
            return torch._int_mm(extremes, extremes.mT)
        with matmul_precision("medium"):
            return exact()

    def seconds(product: Callable[[], Tensor]) -> float:
        start = time.perf_counter()
        product()[0, 0].item()
        return time.perf_counter() - start

    try:
        with _one_thread(), matmul_precision("highest"):
            if not bool((coarse() == 1024 * 127**2).all()):
                return False  # 16-bit sums that overflow
            times = [(seconds(coarse), seconds(exact)) for _ in range(5)]
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return 1.5 * min(first for first, _ in times) < min(second for _, second in times)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On a busy machine, threads wait for each other for longer than a short product takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _products(sides: tuple[_Samples, _Samples]) -> Iterator[_Product]:
    """From coarse to fine, those that pay."""
    (count, dim), device = sides[0].values.shape, sides[0].values.device
    if count * len(sides[1].values) * dim >= SMALL and float(sides[1].reach[-1]):
        if 128 <= dim <= 2**16 and _fast(torch.int8, device):
            yield _IntegerProduct(sides)
        if device.type == "cpu" and _fast(torch.bfloat16, device):  # accelerators do not tell how they sum
            yield _FloatProduct(sides, torch.bfloat16)
        yield _FloatProduct(sides, torch.float32)
    yield _FloatProduct(sides, torch.float64)


class _Search:
    """The state of one search between two sets: which arithmetic its products use at present."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = self.sides = _samples(x, y)
        self._products = _products(self.sides)
        self.product = next(self._products)
        self.rounding = (x.shape[1] + 16) * torch.finfo(torch.float64).eps  # relative, of direct distances

    def _refine(self, left_open: int, rows: slice, columns: slice, limit: float) -> bool:
        """Goes on to a finer product where too many pairs of a tile are left open; False where there is none."""
        if left_open <= limit * (rows.stop - rows.start) * (columns.stop - columns.start):
            return False
        if (finer := next(self._products, None)) is None:
            return False
        self.product = finer
        return True

    def _within(self, scores: Tensor, rows: slice, columns: slice, radii: tuple[Tensor, Tensor]) -> Pairs:
        """The tile's pairs that may lie within the first's or the second's radius, by position in the search."""
        product = self.product
        (slack_x, slack_y), (blur_x, blur_y) = (
            (parts[0][rows], parts[1][columns]) for parts in (product.slack, product.blur)
        )
        around_x, around_y = (
            torch.where(radius < 0, -1.0, radius * ((1 + self.rounding) / self.x.scale)) for radius in radii
        )
        cut_x = product.cut(around_x, slack_x + slack_y.max(), blur_x + blur_y.max())
        cut_y = product.cut(around_y, slack_y + slack_x.max(), blur_y + blur_x.max())
        i, j = _reaching(scores, cut_x, cut_y)
        lower, upper = product.bounds(scores[i, j], slack_x[i] + slack_y[j], blur_x[i] + blur_y[j])
        return self._pairs(i + rows.start, j + columns.start, lower, upper)

    def _pairs(self, i: Tensor, j: Tensor, lower: Tensor, upper: Tensor) -> Pairs:
        """Pairs with bounds in the features' unit, and such that the direct form's rounding is inside of them."""
        scale = self.x.scale
        return Pairs(i, j, lower.mul_(scale * (1 - self.rounding)), upper.mul_(scale * (1 + self.rounding)))

    def direct(self, i: Tensor, j: Tensor) -> Tensor:
        """The distances of pairs, given by their positions in the search."""
        return direct_distances(self.x.features, self.y.features, self.x.order[i], self.y.order[j])

    def measure(self, pairs: Pairs) -> Pairs:
        """The same pairs with narrower bounds, from single inner products."""
        if not len(pairs.first):
            return pairs
        if self.x.values.device.type != "cpu":
            distance = self.direct(pairs.first, pairs.second)
            return Pairs(pairs.first, pairs.second, distance, distance)
        i, j = self.x.order[pairs.first], self.y.order[pairs.second]
        length_x, length_y = self.x.length[i], self.y.length[j]
        product = length_x * length_y
        squares = length_x.square() + length_y.square() - 2 * _inner_products(self.x.values, self.y.values, i, j)
        blur = 2.02 * _gamma(self.x.values.shape[1], torch.float32) * product + 1e-12 * (product + squares.abs())
        slack = self.x.error[i] + self.y.error[j]
        lower = ((squares - blur).clamp_(min=0).sqrt_() - slack).clamp_(min=0)
        found = self._pairs(pairs.first, pairs.second, lower, (squares + blur).clamp_(min=0).sqrt_() + slack)
        return found._replace(
            lower=torch.maximum(found.lower, pairs.lower), upper=torch.minimum(found.upper, pairs.upper)
        )

    # Neighbours within one set

    def candidates(self, rows: slice, columns: slice, nearest: Tensor, trust: float) -> tuple[Pairs, Tensor]:
        """Pairs of the tile that may be neighbours, and the bounds `nearest` (N×k) with what the tile says of them."""
        while True:
            scores = self.product.scores(rows, columns)
            if columns.start < rows.stop:
                past = torch.ones_like(scores, dtype=torch.bool).tril_(rows.start - columns.start)
                scores.masked_fill_(past, self.product.lowest)
            bounds = nearest.clone()
            k = bounds.shape[1]
            bounds[rows] = self._tightened(bounds[rows], _best(scores, k, 1), rows, columns, trust)
            bounds[columns] = self._tightened(bounds[columns], _best(scores, k, 0).mT, columns, rows, trust)
            radius = bounds[:, -1]
            found = self._within(scores, rows, columns, (radius[rows], radius[columns]))
            if not self._refine(len(found.first), rows, columns, CROWDED_BEFORE):
                return found, bounds

    def _tightened(self, nearest: Tensor, best: Tensor, own: slice, others: slice, trust: float) -> Tensor:
        """Bounds from above on the k nearest, from the tile's best scores.

        The worst case of all roundings to int8 is about √D times what they come to: `trust` times it is enough for all
        but freaks, and a search whose result exceeds the bounds is known to have failed.
        """
        k, product = nearest.shape[1], self.product
        slack = (product.slack[0][own, None] + product.slack[0][others].max()) * trust
        blur = product.blur[0][own, None] + product.blur[0][others].max()
        upper = product.bounds(best, slack, blur)[1] * (self.x.scale * (1 + self.rounding))
        upper[best == product.lowest] = torch.inf
        return torch.cat([nearest, upper], dim=1).topk(k, dim=1, largest=False).values

    def narrow(self, pairs: Pairs, nearest: Tensor) -> tuple[Pairs, Tensor]:
        """The pairs that can still be neighbours, and the bounds with what the measured pairs say of them."""
        pairs = _near(pairs, nearest)
        nearest = torch.minimum(nearest, _smallest(pairs, pairs.upper, nearest))  # bounds on the same order statistics
        return _near(pairs, nearest), nearest

    def neighbours(self, pairs: Pairs, nearest: Tensor, last_only: bool) -> Tensor:
        """The k smallest direct distances of each sample, N×k; infinite for a sample that `pairs` may miss some of."""
        first, second, distance = pairs.first, pairs.second, pairs.upper.clone()
        chosen = _maybe_last(pairs, nearest) if last_only else torch.arange(len(first), device=first.device)
        distance[chosen] = self.direct(first[chosen], second[chosen])
        found = _smallest(pairs, distance, nearest)
        found[found[:, -1] > nearest[:, -1]] = torch.inf  # pairs beyond the bounds were left out
        result = torch.empty_like(found)
        result[self.x.order] = found
        return result

    # Balls between two sets

    def decided(self, rows: slice, columns: slice, around_x: Tensor, around_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The tile's part of `close_pairs`."""
        around_x, around_y = around_x[:, self.x.order[rows]], around_y[:, self.y.order[columns]]
        while True:
            scores = self.product.scores(rows, columns)
            pairs = self._within(scores, rows, columns, (around_x.amax(dim=0), around_y.amax(dim=0)))
            radii = torch.cat([around_x[:, pairs.first - rows.start], around_y[:, pairs.second - columns.start]])
            left = _undecided(pairs, radii)
            if not self._refine(len(left), rows, columns, CROWDED):
                break
        distance = pairs.upper
        again = self.measure(pairs.at(left))
        distance[left] = again.upper
        left = left[_undecided(again, radii[:, left])]
        distance[left] = self.direct(pairs.first[left], pairs.second[left])
        return self.x.order[pairs.first], self.y.order[pairs.second], distance


def _smallest(pairs: Pairs, values: Tensor, nearest: Tensor) -> Tensor:
    """The k smallest of each sample's values, one a pair; N×k as `nearest`, infinite where there are fewer."""
    values = values.repeat(2)
    owner, order, rank = _ranked(torch.cat([pairs.first, pairs.second]), values)
    chosen = rank < nearest.shape[1]
    found = torch.full_like(nearest, torch.inf)
    found[owner[chosen], rank[chosen]] = values[order[chosen]]
    return found


def _maybe_last(pairs: Pairs, nearest: Tensor) -> Tensor:
    """Indices of the pairs that may be the k-th nearest of one of the two.

    Fewer than k pairs have a lower bound under the k-th smallest one: those whose upper bound is under it, too, stay
    among the first k − 1 at any distance within their bounds.
    """
    least, greatest = _smallest(pairs, pairs.lower, nearest)[:, -1], nearest[:, -1]
    chosen = [(least[i] <= pairs.upper) & (pairs.lower <= greatest[i]) for i in (pairs.first, pairs.second)]
    return (chosen[0] | chosen[1]).nonzero()[:, 0]


def _undecided(pairs: Pairs, radii: Tensor) -> Tensor:
    """Indices of the pairs whose bounds enclose one of their radii, R×P."""
    return ((pairs.lower <= radii) & (radii <= pairs.upper)).any(dim=0).nonzero()[:, 0]


def _best(scores: Tensor, k: int, dim: int) -> Tensor:
    """The k greatest scores along a dimension, or a little less: of each group of others, the greatest only."""
    size = max(1, min(GROUP, scores.shape[dim] // (8 * k)))
    groups = scores.shape[dim] // size
    greatest = scores.narrow(dim, 0, groups * size).unflatten(dim, (size, groups)).amax(dim=dim)
    return greatest.topk(min(k, groups), dim=dim).values


def _reaching(scores: Tensor, cut_x: Tensor, cut_y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the scores that reach the row's or the column's cut: few groups have one that does."""
    size = math.gcd(8, scores.shape[1])
    parts, cuts = scores.unflatten(1, (size, -1)), cut_y.view(size, -1)  # a group's columns lie far apart: faster
    i, group = (parts.amax(dim=1) >= torch.minimum(cut_x[:, None], cuts.amin(dim=0))).nonzero().unbind(dim=1)
    found, part = (parts[i, :, group] >= torch.minimum(cut_x[i, None], cuts.mT[group])).nonzero().unbind(dim=1)
    return i[found], part * cuts.shape[1] + group[found]


def _ranked(owner: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts by owner, then by value: the sorted owners, the order, and the rank of each among its owner's."""
    order = value.argsort()
    order = order[owner[order].argsort(stable=True)]
    owner = owner[order]
    return owner, order, torch.arange(len(owner), device=owner.device) - torch.searchsorted(owner, owner)


def _inner_products(x: Tensor, y: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """x·y of single pairs, summed in float32, without copies of the samples; float64 P."""
    order = first.argsort()
    starts = torch.zeros(len(x) + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(first, minlength=len(x)).cumsum(0)
    result = torch.empty(len(first), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse tensors are called a beta feature
        pattern = torch.sparse_csr_tensor(
            starts, second[order], x.new_zeros(len(first)), (len(x), len(y)), check_invariants=False
        )
        result[order] = torch.sparse.sampled_addmm(pattern, x, y.mT, beta=0.0).values().double()
    return result
