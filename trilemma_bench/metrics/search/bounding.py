"""What a search knows of pairs: bounds from products, narrower ones from single inner products, and distances."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from trilemma_bench.metrics.search import tiles
from trilemma_bench.metrics.search.copies import distinct
from trilemma_bench.metrics.search.distances import (
    SINGLE,
    all_distances,
    direct_distances,
    in_single,
    rounding,
    underflow,
)
from trilemma_bench.metrics.search.pairs import Pairs, nearest_of_both, undecided
from trilemma_bench.metrics.search.products import LocalProduct, Product, Scores, products
from trilemma_bench.metrics.search.sides import Side, gamma

ALL = 0.1  # share of some samples' pairs from which to measure all, side by side, is cheaper than single ones
CROWDED = 0.06  # share of a tile's or a block's pairs left open from which a finer product is cheaper than single pairs
CLUSTERED = 0.5  # share of all pairs up to which products around clusters, in float64, cost no more than all in float32
DEAR = 0.01  # share of pairs that single inner products leave open from which a finer product is cheaper


class Search:
    """The state of one search between two sets: which arithmetic its products use at present."""

    def __init__(self, x: Side, y: Side) -> None:
        self.x, self.y = self.sides = x, y
        self.scale = self.x.frame.scale
        self._products = products(self.sides)
        self.product = next(self._products)()
        dim = self.x.features.shape[1]
        self.errors = rounding(dim), underflow(dim)  # relative and absolute
        self._local_pairs = CLUSTERED * len(x) * len(y) if x.together * y.together <= CLUSTERED**2 else 0.0

    def go_on(self) -> bool:
        """Goes on to a finer product; False where there is none."""
        make = None if self.product.exact else next(self._products, None)
        self._take(make)
        return make is not None

    def go_to_finest(self) -> bool:
        """Goes on to the finest product: single inner products did not do, which are as fine as float32's are."""
        makers = [] if self.product.exact else list(self._products)
        self._take(makers[-1] if makers else None)
        return bool(makers)

    def _take(self, make: Callable[[], Product] | None) -> None:
        """A finer product in the place of the last one, whose codes give way to what it needs."""
        if make:
            for side in self.sides:
                side.forget_codes()
            self.product = make()

    @cached_property
    def local(self) -> LocalProduct:
        return LocalProduct(self.sides)

    def take_crowded(
        self,
        scores: Scores,
        rows: slice,
        columns: slice,
        radii: tuple[Tensor, Tensor],
        balls: tuple[Tensor, Tensor] | None = None,
    ) -> list[tuple[slice, slice]]:
        """Blocks of the tile in which many pairs within the radii are left open: a band by a band each.

        They are for `local`, and count no longer in `scores`. balls: see `_left_open`. None where clusters have more
        than `CLUSTERED` of all pairs: then the next product is as cheap.
        """
        if not self._local_pairs or scores.product.dtype == torch.float64:
            return []
        bands = self.x.bands(rows), self.y.bands(columns)
        counts = tiles.by_block(*self._left_open(scores, rows, columns, radii, balls), *bands)
        crowd = CROWDED / tiles.EVERY
        blocks = [
            block for block, count in zip(product(*bands), counts, strict=True) if count > crowd * tiles.size(*block)
        ]
        self._local_pairs = max(0.0, self._local_pairs - sum(tiles.size(*block) for block in blocks))
        if not self._local_pairs:
            return []
        for block in blocks:
            scores.values[tiles.part_of(block[0], rows), tiles.part_of(block[1], columns)] = scores.product.lowest
        return blocks

    def _left_open(
        self,
        scores: Scores,
        rows: slice,
        columns: slice,
        radii: tuple[Tensor, Tensor],
        balls: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Pairs of clusters whose distances are in question, by position in the tile, of every `EVERY`-th row.

        balls: radii of the rows, R×n, and of the columns, R'×m, where these alone are the question. What is as far
        apart as from the centre is no cluster: the next product tells it apart.
        """
        some, start = slice(None, None, tiles.EVERY), slice(0, 1)
        pairs = self._within(scores.of_rows(some), start, start, (radii[0][some], radii[1]))
        if balls:
            around = torch.cat([balls[0][:, some][:, pairs.first], balls[1][:, pairs.second]])
            pairs = pairs.at(undecided(pairs, around))
        reach = torch.minimum(self.x.reach[rows][some][pairs.first], self.y.reach[columns][pairs.second])
        pairs = pairs.at((pairs.lower < pairs.upper) & (pairs.upper < reach * self.scale))
        return pairs.first * tiles.EVERY, pairs.second

    def _cuts(self, scores: Scores, radii: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The scores that all pairs within the first's, and within the second's radius reach."""
        product, _, (slack_x, slack_y), (blur_x, blur_y) = scores
        around_x, around_y = (torch.where(radius < 0, -1.0, self._reach(radius) / self.scale) for radius in radii)
        cut_x = product.cut(around_x, slack_x + slack_y.max(), blur_x + blur_y.max())
        return cut_x, product.cut(around_y, slack_y + slack_x.max(), blur_y + blur_x.max())

    def _within(self, scores: Scores, rows: slice, columns: slice, radii: tuple[Tensor, Tensor]) -> Pairs:
        """The tile's pairs that may lie within the first's or the second's radius, by position in the search."""
        product, values, (slack_x, slack_y), (blur_x, blur_y) = scores
        i, j = tiles.reaching(values, *self._cuts(scores, radii))
        lower, upper = product.bounds(values[i, j], slack_x[i] + slack_y[j], blur_x[i] + blur_y[j])
        return Pairs(i + rows.start, j + columns.start, *self._in_features(lower, upper))

    def _tightened(self, nearest: Tensor, best: Tensor, scores: Scores, trust: float) -> Tensor:
        """Bounds from above on the k nearest of a tile's rows, from the best of their scores.

        The worst case of all roundings is about √D times what they come to: `trust` times it is enough for all but
        freaks, and a search whose result exceeds the bounds is known to have failed.
        """
        product, _, *errors = scores
        slack, blur = (own[:, None] + others.max() for own, others in errors)
        trust = 1.0 if product.dtype == torch.float64 else trust
        upper = self._above(product.bounds(best, slack * trust, blur)[1] * self.scale)
        upper[best == product.lowest] = torch.inf
        return nearest_of_both(nearest, upper)

    def _in_features(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds on distances in the features' unit, for bounds in the search's but for rounding."""
        relative, absolute = self.errors
        lower = lower.mul_(self.scale).mul_(1 - relative).sub_(absolute).clamp_(min=0)
        return in_single(lower), self._above(upper.mul_(self.scale))

    def _above(self, distance: Tensor) -> Tensor:
        """Bounds from above on distances, of which bounds but for rounding are given."""
        relative, absolute = self.errors
        return in_single(distance.mul(1 + relative).add_(absolute))

    def _reach(self, radius: Tensor) -> Tensor:
        """How far apart samples may be, but for rounding, and still lie within the radius."""
        relative, absolute = self.errors
        return radius.mul(1 + relative + SINGLE).add_(absolute)

    def direct(self, i: Tensor, j: Tensor) -> Tensor:
        """The distances of pairs, given by their positions in the search."""
        return direct_distances(self.x.features, self.y.features, self.x.order[i], self.y.order[j])

    def chosen_distances(self, pairs: Pairs) -> Tensor:
        """The distances of a tile's pairs; of many among a few samples, those of all of these that are no copies."""
        if not len(pairs.first):
            return pairs.upper
        rows, i = pairs.first.unique(return_inverse=True)
        columns, j = pairs.second.unique(return_inverse=True)
        if len(i) <= ALL * len(rows) * len(columns):
            return self.direct(pairs.first, pairs.second)
        x, _, place_x = distinct(self.x.features[self.x.order[rows]])
        y, _, place_y = distinct(self.y.features[self.y.order[columns]])
        return all_distances(x, y)[place_x[i], place_y[j]]

    def measure(self, pairs: Pairs) -> Pairs:
        """The same pairs with narrower bounds, from single inner products in float32, if theirs were coarser."""
        left = (pairs.lower < pairs.upper).nonzero()[:, 0]
        if not len(left) or self.product.dtype == torch.float64:
            return pairs
        some = pairs.at(left)
        if self.x.values.device.type != "cpu":
            lower = upper = self.direct(some.first, some.second)
        else:
            lower, upper = self._in_features(*self._bounds_of_single(some))
        lower, upper = torch.maximum(lower, some.lower), torch.minimum(upper, some.upper)
        return pairs._replace(
            lower=pairs.lower.index_copy(0, left, lower), upper=pairs.upper.index_copy(0, left, upper)
        )

    def _bounds_of_single(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Bounds on the distances of pairs, in the search's unit and but for rounding, from single inner products."""
        i, j = self.x.order[pairs.first], self.y.order[pairs.second]
        length_x, length_y = self.x.lengths[i], self.y.lengths[j]
        product = length_x * length_y
        squares = length_x.square() + length_y.square() - 2 * _inner_products(self.x.values, self.y.values, i, j)
        dim = self.x.values.shape[1]
        blur = 2.02 * gamma(dim, torch.float32) * product + 1e-12 * (product + squares.abs())
        blur += 4 * dim * torch.finfo(torch.float32).tiny  # products that underflow
        slack = self.x.error[i] + self.y.error[j]
        lower = ((squares - blur).clamp_(min=0).sqrt_() - slack).clamp_(min=0)
        return lower, (squares + blur).clamp_(min=0).sqrt_() + slack


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
