"""Matrix products in cheap arithmetic, with bounds on what their rounding can be: a search's first look at distances.

int8 or bfloat16 where the processor multiplies them fast, then float32, then float64. The bounds are rigorous. int8:
x = s·q + e with |e| known for each sample, so | |x − y| − s·|q − p| | ≤ |e_x| + |e_y| by the triangle inequality, and
integer products are exact; e is 0 for samples of two values alone. Floating point of unit roundoff u: an inner product
of length D errs by at most γ·|x||y|, γ = D·u / (1 − D·u), in whatever order it is summed (Higham 2002, section 3.1).
bfloat16 is both: samples are rounded, and float32 sums their exact products.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma_bench.metrics.search.distances import Space
from trilemma_bench.metrics.search.sides import (
    Side,
    gamma,
    lengths_of,
    padded,
    part_of,
    roundoff,
    slices,
    upper_lengths_of,
)
from trilemma_bench.precision import matmul_precision

SMALL = 2**33  # multiplications under which float64 is fast enough


class Scores(NamedTuple):
    """A tile's scores by a product, −d²/2 in units of its `unit`, up to known errors.

    Each sample adds its slack to the error of d, and its blur to that of d²: float64, those of rows and of columns.
    """

    product: Product
    values: Tensor
    slack: tuple[Tensor, Tensor]
    blur: tuple[Tensor, Tensor]

    def of_rows(self, rows: slice) -> Scores:
        """Those of some of the rows, by position in the tile."""
        slack, blur = ((parts[0][rows], parts[1]) for parts in (self.slack, self.blur))
        return Scores(self.product, self.values[rows], slack, blur)


class Product:
    """Scores of tiles in one arithmetic."""

    dtype: torch.dtype
    unit = 1.0
    exact = False  # where its scores are the distances, but for the rounding of these
    sides: tuple[Side, Side]
    slack: list[Tensor]
    blur: list[Tensor]

    def scores(self, rows: slice, columns: slice) -> Scores:
        slack, blur = ((parts[0][rows], parts[1][columns]) for parts in (self.slack, self.blur))
        return Scores(self, self.values(rows, columns), slack, blur)

    def values(self, rows: slice, columns: slice) -> Tensor:
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
        least = torch.finfo(self.dtype).min  # above the score of a pair that does not count
        cut = (cut - cut.abs() * 4 * roundoff(self.dtype)).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=least)
        return cut.clamp_(min=least).to(self.dtype)

    @property
    def lowest(self) -> float:
        """The score of a pair that does not count."""
        return -(2**31) if self.dtype == torch.int32 else -math.inf


class FloatProduct(Product):
    """Scores in float32. Tiles are centred and rounded as they come, which spares the memory.

    bfloat16: the samples are rounded to it, and their products summed in float32.
    """

    dtype = torch.float32

    def __init__(self, sides: tuple[Side, Side], stored: torch.dtype) -> None:
        self.sides, self.stored = sides, stored
        self._spaces = [Space(sides[0].values) for _ in range(3)]
        self._rows, self._x = slice(0, 0), self._spaces[0](0, 0)  # those of the last tile: mostly the next one's, too
        both = [self._facts(side) for side in (sides[:1] if sides[0] is sides[1] else sides)]
        self.halves, self.slack, self.blur = (list(parts) for parts in zip(*(both * 2)[:2], strict=True))

    def _facts(self, side: Side) -> tuple[Tensor, Tensor, Tensor]:
        """Half of the squared lengths, slack and blur of samples in search order, N each."""
        u, (count, dim), space = roundoff(self.dtype), side.values.shape, Space(side.values)
        slack = 2 * u * side.reach + side.error[side.order]
        halves = torch.empty_like(slack)
        for rows in slices(0, count, part_of(slack)):
            values = side.centred(rows, space(rows.stop - rows.start, dim))
            stored = values.to(self.stored).to(self.dtype)
            halves[rows] = lengths_of(stored).square_().div_(2)
            slack[rows] += upper_lengths_of(values - stored)
        sums = dim if self.stored == torch.float32 else 2 * dim  # bfloat16: some processors do not round to nearest
        return halves.to(self.dtype), slack, 1.02 * (gamma(sums, self.dtype) + 8 * u) * side.reach.square() + 1e-30

    def _tile(self, side: int, rows: slice) -> Tensor:
        values = self._spaces[side](rows.stop - rows.start, self.sides[side].values.shape[1])
        size = part_of(values)
        for part, out in zip(slices(rows.start, rows.stop, size), values.split(size), strict=True):
            out.copy_(self.sides[side].centred(part, out).to(self.stored))
        return values

    def values(self, rows: slice, columns: slice) -> Tensor:
        if rows != self._rows:
            self._rows, self._x = rows, self._tile(0, rows)
        y = self._tile(1, columns)
        with matmul_precision("medium" if self.stored == torch.bfloat16 else "highest"):
            values = torch.mm(self._x, y.mT, out=self._spaces[2](len(self._x), len(y)))
        return values.sub_(self.halves[0][rows, None]).sub_(self.halves[1][columns])


class LocalProduct(Product):
    """Scores in float64 around one row of each band of rows: samples near it lose no digits to what is far from both.

    A model that collapsed leaves clusters that are tiny beside what is between them. The rows of a band follow each
    other in the order of the search without a great gap, and are mostly of a few clusters. Around the centre, d² errs
    by at most G(|x|² + |y|²) with G = 2γ + 16u, and |y| ≤ |x| + d: that is G(3|x|² + 2d²). So rows have all the slack
    and blur, and what is left is relative: see `distances.rounding`.
    """

    dtype = torch.float64

    def __init__(self, sides: tuple[Side, Side]) -> None:
        self.sides = sides
        self._spaces = [Space(sides[0].features, self.dtype) for _ in range(3)]

    def scores(self, rows: slice, columns: slice) -> Scores:
        dim, u = self.sides[0].features.shape[1], roundoff(self.dtype)
        values = self._spaces[2](rows.stop - rows.start, columns.stop - columns.start)
        bands = self.sides[0].bands(rows)
        parts = zip(bands, values.split([band.stop - band.start for band in bands]), strict=True)
        length = torch.cat([self._fill(band, columns, part) for band, part in parts])
        blur = length.square().mul_(6.1 * (gamma(dim, self.dtype) + 8 * u)).add_(1e-300)
        none = length.new_zeros(len(values[0]))
        return Scores(self, values, (8 * u * length, none), (blur, none))

    def _fill(self, band: slice, columns: slice, values: Tensor) -> Tensor:
        """Writes the scores of a band into `values`; returns the lengths of its rows, around their centre."""
        (first, second), dim = self.sides, self.sides[0].features.shape[1]
        centre = first.features[first.order[(band.start + band.stop) // 2]].double()
        x = first.around(centre, band, self._spaces[0](len(values), dim))
        y = second.around(centre, columns, self._spaces[1](len(values[0]), dim))
        torch.mm(x, y.mT, out=values)
        length, other = (torch.linalg.vector_norm(z, dim=1) for z in (x, y))
        values.sub_(length.square()[:, None], alpha=0.5).sub_(other.square(), alpha=0.5)
        return length


class IntegerProduct(Product):
    """Scores in int32 from samples rounded to int8. `unit` is the square of one step."""

    dtype = torch.int32

    def __init__(self, sides: tuple[Side, Side]) -> None:
        self.sides = sides
        self.unit = sides[0].frame.steps[0] ** 2
        self.codes, self.halves, self.slack = (
            list(parts) for parts in zip(*(side.codes for side in sides), strict=True)
        )
        self.blur = [self.unit * (slack > 0) for slack in self.slack]  # halves are rounded down
        self.exact = not any(bool(slack.any()) for slack in self.slack)
        self._space = Space(self.halves[0])

    def values(self, rows: slice, columns: slice) -> Tensor:
        x, y = (codes[part.start : padded(part.stop)] for codes, part in zip(self.codes, (rows, columns), strict=True))
        values = torch._int_mm(x, y.mT, out=self._space(len(x), len(y)))
        values = values[: rows.stop - rows.start, : columns.stop - columns.start]
        return values.sub_(self.halves[0][rows, None]).sub_(self.halves[1][columns])


@lru_cache
def is_fast(dtype: torch.dtype, device: torch.device) -> bool:
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


def products(sides: tuple[Side, Side]) -> Iterator[Callable[[], Product]]:
    """Makers of those that pay, from coarse to fine."""
    (count, dim), device = sides[0].values.shape, sides[0].values.device
    if count * len(sides[1].values) * dim >= SMALL:
        if 128 <= dim <= 2**16 and is_fast(torch.int8, device):
            yield partial(IntegerProduct, sides)
        if device.type == "cpu" and is_fast(torch.bfloat16, device):  # accelerators do not tell how they sum
            yield partial(FloatProduct, sides, torch.bfloat16)
        yield partial(FloatProduct, sides, torch.float32)
    yield partial(LocalProduct, sides)
