"""Which samples are near each other: exact, at a fraction of the price of all their distances.

A matrix product in the cheapest arithmetic that serves first bounds every distance from both sides (`products.py`).
Pairs whose bounds leave a question open are measured one by one, at last as `distances.py` defines it. The answers
therefore depend neither on the blocks nor on the arithmetic that found them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.copies import groups_of, with_few_copies
from trilemma_bench.metrics.distances import SINGLE, all_distances, direct_distances, in_single, rounding, underflow
from trilemma_bench.metrics.pairs import (
    Pairs,
    first_of_each,
    join,
    maybe_from,
    near,
    nearest_of_both,
    nearest_of_each,
    no_pairs,
    undecided,
)
from trilemma_bench.metrics.products import Scores, gamma, products, sides_of, slices

TILE = (1024, 2560)  # distances held at a time, 10 MiB: found by trial on two CPUs
DEVICE_TILE = (2048, 4096)
POOL = 2**18  # candidates for neighbours held before they are measured one by one: 8 MiB
CROWDED = 0.06  # share of a tile's pairs left open from which a finer product is cheaper than single pairs
CROWDED_BEFORE = 0.125  # the same while the radii are not known: most of these pairs are never measured
EVERY = 16  # of so many rows, one tells whether a tile is crowded
DEAR = 0.01  # the same of pairs that a single inner product has left open: what decides them takes much longer
ALL = 0.1  # share of some samples' pairs from which to measure all, side by side, is cheaper than single ones
TIED = 16  # pairs a sample that are held, and 4 for each neighbour; where there are more, tile by tile
GROUP = 32  # at most so many samples of which only the nearest counts when radii are bounded from above
TRUST = 0.125  # share of the worst case of rounding that a first search for neighbours reckons with


def nearest_distances(features: Tensor, k: int, block: int | None = None) -> Tensor:
    """Distances of each sample to its k nearest others, ascending.

    features: N×D. Returns float64 N×k. block: samples worked on at a time; it changes memory, never the result.
    Raises TrilemmaError when there are fewer than k + 1 samples.
    """
    return _nearest(features, k, 0, block)[1]


def nearest_neighbours(features: Tensor, k: int, further: int, block: int | None = None) -> tuple[Tensor, Tensor]:
    """Who the k + further nearest others of each sample are, int64 N×(k + further), and how far from the k-th on.

    Distances are float64 N×(1 + further), ascending. The first k − 1 others come in any order, which costs less: what
    is surely nearer than the k-th need not be decided. block, errors: as in `nearest_distances`.
    """
    index, distance = _nearest(features, k + further, k - 1, block)
    return index, distance[:, k - 1 :]


def _nearest(features: Tensor, k: int, first: int, block: int | None) -> tuple[Tensor, Tensor]:
    """The k nearest others of each sample, int64 N×k, and their distances, of which those before `first` are bounds."""
    if (count := len(features)) < k + 1:
        raise TrilemmaError(f"the distance to neighbour k={k} needs at least k+1={k + 1} samples, got {count}")
    if not k:
        nothing = torch.zeros((count, 0), dtype=torch.float64, device=features.device)
        return nothing.long(), nothing
    kept, place = with_few_copies(groups_of(features), k + 1)  # no row has more than k copies among its k nearest
    if len(kept) < count:
        index, distance = _nearest_of(features[kept], k, first, block)
        return kept[index][place], distance[place]
    return _nearest_of(features, k, first, block)


def _nearest_of(features: Tensor, k: int, first: int, block: int | None) -> tuple[Tensor, Tensor]:
    search, tile = _Search(features, features), _tile(features, block)
    for trust in (TRUST, 1.0):
        left = _candidates(search, k, tile, trust)
        if left is None and search.go_to_finest():
            left = _candidates(search, k, tile, trust)
        if left is None:
            break
        index, distance = search.neighbours(*left, first)
        if bool(distance.isfinite().all()):
            return index, distance
    return search.neighbours_by_tile(k, tile)


def _candidates(search: _Search, k: int, tile: tuple[int, int], trust: float) -> tuple[Pairs, Tensor] | None:
    """Pairs that may be neighbours, and bounds from above on each sample's k nearest; None where there are too many."""
    count, device = len(search.x.features), search.x.features.device
    most = (TIED + 4 * k) * count
    nearest = torch.full((count, k), torch.inf, dtype=torch.float64, device=device)  # the pairs to look at are nearer
    pool, measured = [no_pairs(device)], no_pairs(device)
    for rows, columns in _tiles(count, count, tile, half=True):
        if (found := search.candidates(rows, columns, nearest, trust)) is None:
            return None
        pairs, nearest = found
        pool.append(pairs)
        if sum(len(pairs.first) for pairs in pool) > POOL:
            pool = [near(join(pool), nearest)]  # the bounds have tightened since, often enough to go on
        if len(pool[0].first) > 0.75 * POOL:
            measured, nearest = search.narrow(join([measured, search.measure(pool[0])]), nearest)
            pool = [no_pairs(device)]
            if len(measured.first) > most:
                return None
    measured, nearest = search.narrow(join([measured, search.measure(near(join(pool), nearest))]), nearest)
    return (measured, nearest) if len(measured.first) <= min(most, k * count + DEAR * count**2 / 2) else None


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


def nearest_others(x: Tensor, y: Tensor, block: int | None = None) -> tuple[Tensor, Tensor]:
    """The nearest sample of y, M×D, to each of x, N×D: index, int64 N, the first of equally near ones, and distance.

    Distances are float64 N. block: as in `nearest_distances`.
    """
    (x, _, place), (y, kept, _) = (_distinct(side) for side in (x, y))
    search = _Search(x, y)
    count, device = len(x), x.device
    nearest = torch.full((count,), torch.inf, dtype=torch.float64, device=device)
    index = torch.zeros(count, dtype=torch.int64, device=device)
    for rows, columns in _tiles(count, len(y), _tile(x, block)):
        i, j, distance = search.nearest_in(rows, columns, nearest[rows])
        j = search.y.order[j]
        found = nearest.scatter_reduce(0, i, distance, "amin")
        index[found < nearest] = len(y)
        best = distance == found[i]
        index.scatter_reduce_(0, i[best], j[best], "amin")
        nearest = found
    where = torch.empty_like(index)
    where[search.x.order] = torch.arange(count, device=device)
    return kept[index[where]][place], nearest[where][place]


def _distinct(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(the rows without their later copies, where they are among all, where each of all is among them)."""
    kept, place = with_few_copies(groups_of(features), 1)
    return features if len(kept) == len(features) else features[kept], kept, place


def _tile(features: Tensor, block: int | None) -> tuple[int, int]:
    return (block, block) if block else TILE if features.device.type == "cpu" else DEVICE_TILE


def _tiles(count: int, others: int, tile: tuple[int, int], half: bool = False) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of all tiles; `half`: those that hold pairs whose second index is the greater one."""
    for rows in slices(0, count, tile[0]):
        for columns in slices(rows.start if half else 0, others, tile[1]):
            yield rows, columns


class _Search:
    """The state of one search between two sets: which arithmetic its products use at present."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = self.sides = sides_of(x, y)
        self._products = products(self.sides)
        self.product = next(self._products)()
        dim = x.shape[1]
        self.errors = rounding(dim), underflow(dim)  # relative and absolute

    def go_on(self) -> bool:
        """Goes on to a finer product; False where there is none."""
        make = next(self._products, None)
        self.product = make() if make else self.product
        return make is not None

    def go_to_finest(self) -> bool:
        """Goes on to the finest product: single inner products did not do, which are as fine as float32's are."""
        makers = list(self._products)
        self.product = makers[-1]() if makers else self.product
        return bool(makers)

    def _cuts(self, scores: Scores, radii: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The scores that all pairs within the first's, and within the second's radius reach."""
        _, (slack_x, slack_y), (blur_x, blur_y) = scores
        around_x, around_y = (torch.where(radius < 0, -1.0, self._reach(radius) / self.x.scale) for radius in radii)
        cut_x = self.product.cut(around_x, slack_x + slack_y.max(), blur_x + blur_y.max())
        return cut_x, self.product.cut(around_y, slack_y + slack_x.max(), blur_y + blur_x.max())

    def _within(self, scores: Scores, rows: slice, columns: slice, radii: tuple[Tensor, Tensor]) -> Pairs:
        """The tile's pairs that may lie within the first's or the second's radius, by position in the search."""
        values, (slack_x, slack_y), (blur_x, blur_y) = scores
        i, j = _reaching(values, *self._cuts(scores, radii))
        lower, upper = self.product.bounds(values[i, j], slack_x[i] + slack_y[j], blur_x[i] + blur_y[j])
        return Pairs(i + rows.start, j + columns.start, *self._in_features(lower, upper))

    def _in_features(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds on distances in the features' unit, for bounds in the search's but for rounding."""
        relative, absolute = self.errors
        lower = lower.mul_(self.x.scale).mul_(1 - relative).sub_(absolute).clamp_(min=0)
        return in_single(lower), self._above(upper.mul_(self.x.scale))

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
        rows, i = pairs.first.unique(return_inverse=True)
        columns, j = pairs.second.unique(return_inverse=True)
        if len(i) <= ALL * len(rows) * len(columns):
            return self.direct(pairs.first, pairs.second)
        x, _, place_x = _distinct(self.x.features[self.x.order[rows]])
        y, _, place_y = _distinct(self.y.features[self.y.order[columns]])
        return all_distances(x, y)[place_x[i], place_y[j]]

    def measure(self, pairs: Pairs) -> Pairs:
        """The same pairs with narrower bounds, from single inner products in float32, if theirs were coarser."""
        if not len(pairs.first) or self.product.dtype == torch.float64:
            return pairs
        if self.x.values.device.type != "cpu":
            distance = self.direct(pairs.first, pairs.second)
            return Pairs(pairs.first, pairs.second, distance, distance)
        i, j = self.x.order[pairs.first], self.y.order[pairs.second]
        length_x, length_y = self.x.length[i], self.y.length[j]
        product = length_x * length_y
        squares = length_x.square() + length_y.square() - 2 * _inner_products(self.x.values, self.y.values, i, j)
        dim = self.x.values.shape[1]
        blur = 2.02 * gamma(dim, torch.float32) * product + 1e-12 * (product + squares.abs())
        blur += 4 * dim * torch.finfo(torch.float32).tiny  # products that underflow
        slack = self.x.error[i] + self.y.error[j]
        lower = ((squares - blur).clamp_(min=0).sqrt_() - slack).clamp_(min=0)
        lower, upper = self._in_features(lower, (squares + blur).clamp_(min=0).sqrt_() + slack)
        return pairs._replace(lower=torch.maximum(lower, pairs.lower), upper=torch.minimum(upper, pairs.upper))

    # Neighbours within one set

    def candidates(self, rows: slice, columns: slice, nearest: Tensor, trust: float) -> tuple[Pairs, Tensor] | None:
        """Pairs of the tile that may be neighbours, and the bounds `nearest` (N×k) with what the tile says of them.

        None where they are too many for any product.
        """
        while True:
            scores = self._scores_once(rows, columns)
            bounds = self._bounded(scores, rows, columns, nearest, trust)
            radii = bounds[rows, -1], bounds[columns, -1]
            if not _crowded(scores.values, *self._cuts(scores, radii)):
                return self._within(scores, rows, columns, radii), bounds
            if not self.go_on():
                return None

    def _scores_once(self, rows: slice, columns: slice) -> Scores:
        """The scores of a tile, in which a pair counts once: where its second index is the greater one."""
        scores = self.product.scores(rows, columns)
        if columns.start < rows.stop:
            scores.values.masked_fill_(_past(scores.values, rows, columns), self.product.lowest)
        return scores

    def _bounded(self, scores: Scores, rows: slice, columns: slice, nearest: Tensor, trust: float) -> Tensor:
        """The bounds `nearest` with what the tile says of them; said twice, its pairs would count twice."""
        bounds, (values, slack, blur), k = nearest.clone(), scores, nearest.shape[1]
        bounds[rows] = self._tightened(bounds[rows], _best(values, k, 1), slack, blur, trust)
        bounds[columns] = self._tightened(bounds[columns], _best(values, k, 0).mT, slack[::-1], blur[::-1], trust)
        return bounds

    def _tightened(
        self, nearest: Tensor, best: Tensor, slack: tuple[Tensor, ...], blur: tuple[Tensor, ...], trust: float
    ) -> Tensor:
        """Bounds from above on the k nearest, from the tile's best scores; slack, blur: their own, and the others'.

        The worst case of all roundings is about √D times what they come to: `trust` times it is enough for all but
        freaks, and a search whose result exceeds the bounds is known to have failed.
        """
        errors = [own[:, None] + others.max() for own, others in (slack, blur)]
        trust = 1.0 if self.product.dtype == torch.float64 else trust
        upper = self._above(self.product.bounds(best, errors[0] * trust, errors[1])[1] * self.x.scale)
        upper[best == self.product.lowest] = torch.inf
        return nearest_of_both(nearest, upper)

    def narrow(self, pairs: Pairs, nearest: Tensor) -> tuple[Pairs, Tensor]:
        """The pairs that can still be neighbours, and the bounds with what the measured pairs say of them.

        Of pairs whose distance is known, no more are needed than each sample's k nearest: of many ties, a few.
        """
        pairs = near(pairs, nearest)
        owner, index, rank = first_of_each(pairs, pairs.upper, nearest.shape[1])
        needed = pairs.lower < pairs.upper
        needed[index] = True
        least = torch.full_like(nearest, torch.inf)
        least[owner, rank] = pairs.upper[index]
        nearest = torch.minimum(nearest, least)  # bounds on the same order statistics
        return near(pairs.at(needed), nearest), nearest

    def neighbours(self, pairs: Pairs, nearest: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """The k nearest of each sample, N×k, and how far they are, before the rank `first` at most.

        Distances are infinite for a sample that `pairs` may miss some of.
        """
        i, j, distance = pairs.first, pairs.second, pairs.upper.clone()
        chosen = (pairs.lower < pairs.upper).nonzero()[:, 0]
        if first:
            chosen = chosen[maybe_from(first, pairs, nearest)[chosen]]
        distance[chosen] = self.direct(i[chosen], j[chosen])
        index, found = nearest_of_each(pairs, distance, nearest)
        found[found[:, -1] > nearest[:, -1]] = torch.inf  # pairs beyond the bounds were left out
        return self._in_place(index, found)

    def neighbours_by_tile(self, k: int, tile: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The k nearest of each sample and their distances, N×k, tile by tile: where too many ties are to be held."""
        count, device = len(self.x.order), self.x.order.device
        nearest = torch.full((count, k), torch.inf, dtype=torch.float64, device=device)
        index = torch.zeros_like(nearest, dtype=torch.int64)
        for rows, columns in _tiles(count, count, tile, half=True):
            distances = self._near_distances(rows, columns, nearest)
            for part, others, start in ((rows, distances, columns.start), (columns, distances.mT, rows.start)):
                found = others.topk(min(k, others.shape[1]), dim=1, largest=False)
                both = torch.cat([nearest[part], found.values], dim=1).topk(k, dim=1, largest=False)
                index[part] = torch.cat([index[part], found.indices + start], dim=1).gather(1, both.indices)
                nearest[part] = both.values
        return self._in_place(index, nearest)

    def _in_place(self, index: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours by their positions in the search, and distances, both N×k, as the samples were given."""
        order = self.x.order
        place = order.argsort()
        return order[index[place]], distance[place]

    def _near_distances(self, rows: slice, columns: slice, nearest: Tensor) -> Tensor:
        """A tile's distances; where they cannot be among the `nearest` (N×k) of either sample, no less than these."""
        scores = self._scores_once(rows, columns)
        radius = self._bounded(scores, rows, columns, nearest, trust=1.0)[:, -1]
        values, (slack_x, slack_y), (blur_x, blur_y) = scores
        bounds = self.product.bounds(values, slack_x[:, None] + slack_y, blur_x[:, None] + blur_y)
        lower, upper = self._in_features(*bounds)
        counts = values > self.product.lowest
        wanted = counts & (lower < upper) & (lower <= torch.maximum(radius[rows, None], radius[columns]))
        i, j = wanted.nonzero().unbind(dim=1)
        upper[~counts] = torch.inf
        upper[i, j] = self.chosen_distances(Pairs(i + rows.start, j + columns.start, lower[i, j], upper[i, j]))
        return upper

    # Nearest samples, and balls, between two sets

    def nearest_in(self, rows: slice, columns: slice, nearest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the tile's pairs that are as near as `nearest`, of the rows, or nearer, and all that tie with these.

        Positions in the search, and distances; others may come too.
        """
        nowhere = torch.full((columns.stop - columns.start,), -1.0, dtype=nearest.dtype, device=nearest.device)
        while True:
            scores = self.product.scores(rows, columns)
            best = _best(scores.values, 1, 1)
            radius = self._tightened(nearest[:, None], best, scores.slack, scores.blur, trust=1.0)[:, 0]
            if _crowded(scores.values, *self._cuts(scores, (radius, nowhere))) and self.go_on():
                continue
            pairs = self.measure(self._within(scores, rows, columns, (radius, nowhere)))
            radius = radius.scatter_reduce(0, pairs.first - rows.start, pairs.upper, "amin")
            pairs = pairs.at(pairs.lower <= radius[pairs.first - rows.start])
            left = (pairs.lower < pairs.upper).nonzero()[:, 0]
            if len(left) <= DEAR * _size(rows, columns) or not self.go_to_finest():
                break
        distance = pairs.upper.index_copy(0, left, self.chosen_distances(pairs.at(left)))
        return pairs.first, pairs.second, distance

    def decided(self, rows: slice, columns: slice, around_x: Tensor, around_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The tile's part of `close_pairs`."""
        around_x, around_y = around_x[:, self.x.order[rows]], around_y[:, self.y.order[columns]]
        while True:
            scores = self.product.scores(rows, columns)
            pairs = self._within(scores, rows, columns, (around_x.amax(dim=0), around_y.amax(dim=0)))
            radii = torch.cat([around_x[:, pairs.first - rows.start], around_y[:, pairs.second - columns.start]])
            left = undecided(pairs, radii)
            if len(left) > CROWDED * _size(rows, columns) and self.go_on():
                del scores, pairs, radii, left  # what takes their place needs the memory
                continue
            again = self.measure(pairs.at(left))
            distance = pairs.upper.index_copy(0, left, again.upper)
            left = left[undecided(again, radii[:, left])]
            if len(left) <= DEAR * _size(rows, columns) or not self.go_to_finest():
                break
        distance[left] = self.chosen_distances(pairs.at(left))
        return self.x.order[pairs.first], self.y.order[pairs.second], distance


def _size(rows: slice, columns: slice) -> int:
    return (rows.stop - rows.start) * (columns.stop - columns.start)


def _past(values: Tensor, rows: slice, columns: slice) -> Tensor:
    """Which of a tile's pairs have a second index that is not the greater one."""
    return torch.ones_like(values, dtype=torch.bool).tril_(rows.start - columns.start)


def _best(scores: Tensor, k: int, dim: int) -> Tensor:
    """The k greatest scores along a dimension, or a little less: of each group of others, the greatest only."""
    size = max(1, min(GROUP, scores.shape[dim] // (8 * k)))
    groups = scores.shape[dim] // size
    greatest = scores.narrow(dim, 0, groups * size).unflatten(dim, (size, groups)).amax(dim=dim)
    return greatest.topk(min(k, groups), dim=dim).values


def _crowded(scores: Tensor, cut_x: Tensor, cut_y: Tensor) -> bool:
    """Whether so many of a tile's scores reach a cut that they are better not listed."""
    reaching = scores[::EVERY] >= torch.minimum(cut_x[::EVERY, None], cut_y)
    return int(reaching.count_nonzero()) > CROWDED_BEFORE * reaching.numel()


def _reaching(scores: Tensor, cut_x: Tensor, cut_y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the scores that reach the row's or the column's cut: few groups have one that does."""
    size = math.gcd(8, scores.shape[1])
    parts, cuts = scores.unflatten(1, (size, -1)), cut_y.view(size, -1)  # a group's columns lie far apart: faster
    i, group = (parts.amax(dim=1) >= torch.minimum(cut_x[:, None], cuts.amin(dim=0))).nonzero().unbind(dim=1)
    found, part = (parts[i, :, group] >= torch.minimum(cut_x[i, None], cuts.mT[group])).nonzero().unbind(dim=1)
    return i[found], part * cuts.shape[1] + group[found]


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
