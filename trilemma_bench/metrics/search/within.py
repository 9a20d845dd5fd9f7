"""The nearest others of each sample, within one set."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.search import tiles
from trilemma_bench.metrics.search.bounding import DEAR, Search
from trilemma_bench.metrics.search.copies import groups_of, with_few_copies
from trilemma_bench.metrics.search.pairs import (
    Pairs,
    first_of_each,
    join,
    maybe_from,
    near,
    nearest_of_each,
    no_pairs,
)
from trilemma_bench.metrics.search.products import Product, Scores
from trilemma_bench.metrics.search.sides import Side, features_of, side_of

POOL = 2**18  # candidates for neighbours held before they are measured one by one: 8 MiB
TIED = 16  # pairs a sample that are held, and 4 for each neighbour; where there are more, tile by tile
TRUST = 0.125  # share of the worst case of rounding that a first search for neighbours reckons with


def nearest_distances(samples: Tensor | Side, k: int, block: int | None = None) -> Tensor:
    """Distances of each sample to its k nearest others, ascending.

    samples: features N×D, or what `sides_of` made of them. Returns float64 N×k. block: samples worked on at a time; it
    changes memory, never the result. Raises TrilemmaError when there are fewer than k + 1 samples.
    """
    return _nearest(samples, k, 0, block)[1]


def nearest_neighbours(samples: Tensor | Side, k: int, further: int, block: int | None = None) -> tuple[Tensor, Tensor]:
    """Who the k + further nearest others of each sample are, int64 N×(k + further), and how far from the k-th on.

    Distances are float64 N×(1 + further), ascending. The first k − 1 others come in any order, which costs less: what
    is surely nearer than the k-th need not be decided. samples, block, errors: as in `nearest_distances`.
    """
    index, distance = _nearest(samples, k + further, k - 1, block)
    return index, distance[:, k - 1 :]


def _nearest(samples: Tensor | Side, k: int, first: int, block: int | None) -> tuple[Tensor, Tensor]:
    """The k nearest others of each sample, int64 N×k, and their distances, of which those before `first` are bounds."""
    if (count := len(samples)) < k + 1:
        raise TrilemmaError(f"the distance to neighbour k={k} needs at least k+1={k + 1} samples, got {count}")
    features = features_of(samples)
    if not k:
        nothing = torch.zeros((count, 0), dtype=torch.float64, device=features.device)
        return nothing.long(), nothing
    kept, place = with_few_copies(groups_of(features), k + 1)  # no row has more than k copies among its k nearest
    if len(kept) < count:
        index, distance = _nearest_of(side_of(features[kept]), k, first, block)
        return kept[index][place], distance[place]
    return _nearest_of(side_of(samples), k, first, block)


def _nearest_of(side: Side, k: int, first: int, block: int | None) -> tuple[Tensor, Tensor]:
    search, shape = _OneSet(side, side), tiles.shape(side.features, block)
    for trust in (TRUST, 1.0):
        left = search.candidates(k, shape, trust)
        if left is None and search.go_to_finest():
            left = search.candidates(k, shape, trust)
        if left is None:
            break
        index, distance = search.neighbours(*left, first)
        if bool(distance.isfinite().all()):
            return index, distance
    return search.neighbours_by_tile(k, shape)


class _OneSet(Search):
    """A search among the samples of one set."""

    def candidates(self, k: int, shape: tuple[int, int], trust: float) -> tuple[Pairs, Tensor] | None:
        """Pairs that may be neighbours, and bounds from above on each sample's k nearest; None where they are too many.

        shape: of the tiles. trust: see `_tightened`.
        """
        nearest = self._nothing_near(k)
        count, device = len(nearest), nearest.device
        most = (TIED + 4 * k) * count
        pool, measured = [no_pairs(device)], no_pairs(device)
        for rows, columns in tiles.within(count, shape):
            if (found := self._candidates_of_tile(rows, columns, nearest, trust)) is None:
                return None
            pairs, nearest = found
            pool.append(pairs)
            if sum(len(pairs.first) for pairs in pool) > POOL:
                pool = [near(join(pool), nearest)]  # the bounds have tightened since, often enough to go on
            if len(pool[0].first) > 0.75 * POOL:
                measured, nearest = self._narrow(join([measured, self.measure(pool[0])]), nearest)
                pool = [no_pairs(device)]
                if len(measured.first) > most:
                    return None
        measured, nearest = self._narrow(join([measured, self.measure(near(join(pool), nearest))]), nearest)
        return (measured, nearest) if len(measured.first) <= min(most, k * count + DEAR * count**2 / 2) else None

    def _nothing_near(self, k: int) -> Tensor:
        """Distances to the k nearest, N×k, before any is known."""
        order = self.x.order
        return torch.full((len(order), k), torch.inf, dtype=torch.float64, device=order.device)

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

    def neighbours_by_tile(self, k: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The k nearest of each sample and their distances, N×k, tile by tile: where too many ties are to be held."""
        nearest = self._nothing_near(k)
        count, index = len(nearest), torch.zeros_like(nearest, dtype=torch.int64)
        for rows, columns in tiles.within(count, shape):
            distances = self._near_distances(rows, columns, nearest)
            for part, others, start in ((rows, distances, columns.start), (columns, distances.mT, rows.start)):
                found = others.topk(min(k, others.shape[1]), dim=1, largest=False)
                both = torch.cat([nearest[part], found.values], dim=1).topk(k, dim=1, largest=False)
                index[part] = torch.cat([index[part], found.indices + start], dim=1).gather(1, both.indices)
                nearest[part] = both.values
        return self._in_place(index, nearest)

    def _candidates_of_tile(
        self, rows: slice, columns: slice, nearest: Tensor, trust: float
    ) -> tuple[Pairs, Tensor] | None:
        """Pairs of the tile that may be neighbours, and the bounds `nearest` (N×k) with what the tile says of them.

        None where they are too many for any product.
        """
        while True:
            scores = self._scores_once(self.product, rows, columns)
            found, bounds = self._candidates_of_blocks(scores, rows, columns, nearest, trust)
            radii = bounds[rows, -1], bounds[columns, -1]
            if not tiles.crowded(scores.values, *self._cuts(scores, radii)):
                return join([*found, self._within(scores, rows, columns, radii)]), bounds
            if not self.go_on():
                return None

    def _candidates_of_blocks(
        self, scores: Scores, rows: slice, columns: slice, nearest: Tensor, trust: float
    ) -> tuple[list[Pairs], Tensor]:
        """Those of the tile's crowded blocks, see `take_crowded`, and the bounds with what all of the tile says."""
        bounds = self._bounded(scores, rows, columns, nearest, trust)
        blocks = self.take_crowded(scores, rows, columns, (bounds[rows, -1], bounds[columns, -1]))
        if blocks:
            bounds = self._bounded(scores, rows, columns, nearest, trust)
        found = []
        for i, j in blocks:
            local = self._scores_once(self.local, i, j)
            bounds = self._bounded(local, i, j, bounds, trust)
            found.append(self._within(local, i, j, (bounds[i, -1], bounds[j, -1])))
        return found, bounds

    def _scores_once(self, product: Product, rows: slice, columns: slice) -> Scores:
        """The scores of a tile, in which a pair counts once: where its second index is the greater one."""
        scores = product.scores(rows, columns)
        square = scores.values[:, : max(0, rows.stop - columns.start)]
        square.masked_fill_(tiles.past(square, rows, columns), product.lowest)
        return scores

    def _bounded(self, scores: Scores, rows: slice, columns: slice, nearest: Tensor, trust: float) -> Tensor:
        """The bounds `nearest` with what the tile says of them; said twice, its pairs would count twice."""
        bounds, k, values = nearest.clone(), nearest.shape[1], scores.values
        turned = scores._replace(slack=scores.slack[::-1], blur=scores.blur[::-1])
        bounds[rows] = self._tightened(bounds[rows], tiles.best(values, k, 1), scores, trust)
        bounds[columns] = self._tightened(bounds[columns], tiles.best(values, k, 0).mT, turned, trust)
        return bounds

    def _narrow(self, pairs: Pairs, nearest: Tensor) -> tuple[Pairs, Tensor]:
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

    def _near_distances(self, rows: slice, columns: slice, nearest: Tensor) -> Tensor:
        """A tile's distances; where they cannot be among the `nearest` (N×k) of either sample, no less than these."""
        scores = self._scores_once(self.product, rows, columns)
        radius = self._bounded(scores, rows, columns, nearest, trust=1.0)[:, -1]
        product, values, (slack_x, slack_y), (blur_x, blur_y) = scores
        bounds = product.bounds(values, slack_x[:, None] + slack_y, blur_x[:, None] + blur_y)
        lower, upper = self._in_features(*bounds)
        counts = values > product.lowest
        wanted = counts & (lower < upper) & (lower <= torch.maximum(radius[rows, None], radius[columns]))
        i, j = wanted.nonzero().unbind(dim=1)
        upper[~counts] = torch.inf
        upper[i, j] = self.chosen_distances(Pairs(i + rows.start, j + columns.start, lower[i, j], upper[i, j]))
        return upper

    def _in_place(self, index: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours by their positions in the search, and distances, both N×k, as the samples were given."""
        order = self.x.order
        place = order.argsort()
        return order[index[place]], distance[place]
