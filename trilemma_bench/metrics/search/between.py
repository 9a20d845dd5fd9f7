"""The nearest samples of another set, and balls, between two sets."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trilemma_bench.metrics.search import tiles
from trilemma_bench.metrics.search.bounding import CROWDED, DEAR, Search
from trilemma_bench.metrics.search.copies import distinct
from trilemma_bench.metrics.search.pairs import Pairs, join, undecided
from trilemma_bench.metrics.search.products import Scores
from trilemma_bench.metrics.search.sides import Side, sides_of


def close_pairs(
    points: Tensor | Side,
    centres: Tensor | Side,
    around_points: Tensor,
    around_centres: Tensor,
    block: int | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All pairs within one of the radii: indices of the points, of the centres (int64), and distances (float64).

    points: N×D; centres: M×D; or what `sides_of` made of both; around_points: radii R×N; around_centres: radii R'×M; a
    radius below 0 holds nothing. A distance compares with each radius of its pair as the exact one does; it may differ
    from it otherwise. Pairs that lie outside of all radii may come too. block: as in `nearest_distances`.
    """
    search = _TwoSets(*sides_of(points, centres))
    for rows, columns in tiles.between(len(points), len(centres), tiles.shape(search.x.features, block)):
        yield search.decided(rows, columns, around_points, around_centres)


def nearest_others(x: Tensor, y: Tensor, block: int | None = None) -> tuple[Tensor, Tensor]:
    """The nearest sample of y, M×D, to each of x, N×D: index, int64 N, the first of equally near ones, and distance.

    Distances are float64 N. block: as in `nearest_distances`.
    """
    (x, _, place), (y, kept, _) = (distinct(side) for side in (x, y))
    search = _TwoSets(*sides_of(x, y))
    count, device = len(x), x.device
    nearest = torch.full((count,), torch.inf, dtype=torch.float64, device=device)
    index = torch.zeros(count, dtype=torch.int64, device=device)
    for rows, columns in tiles.between(count, len(y), tiles.shape(x, block)):
        i, j, distance = search.nearest_in(rows, columns, nearest[rows])
        j = search.y.order[j]
        found = nearest.scatter_reduce(0, i, distance, "amin")
        index[found < nearest] = len(y)
        index.scatter_reduce_(0, i, torch.where(distance == found[i], j, len(y)), "amin")
        nearest = found
    where = torch.empty_like(index)
    where[search.x.order] = torch.arange(count, device=device)
    return kept[index[where]][place], nearest[where][place]


class _TwoSets(Search):
    """A search between the samples of two sets."""

    def nearest_in(self, rows: slice, columns: slice, nearest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the tile's pairs that are as near as `nearest`, of the rows, or nearer, and all that tie with these.

        Positions in the search, and distances; others may come too.
        """
        nowhere = torch.full((columns.stop - columns.start,), -1.0, dtype=nearest.dtype, device=nearest.device)
        while True:
            scores = self.product.scores(rows, columns)
            best = tiles.best(scores.values, 1, 1)
            radius = self._tightened(nearest[:, None], best, scores, trust=1.0)[:, 0]
            near, radius = self._nearest_in_blocks(scores, rows, columns, (radius, nowhere))
            if tiles.crowded(scores.values, *self._cuts(scores, (radius, nowhere))) and self.go_on():
                continue
            pairs = self.measure(join([*near, self._within(scores, rows, columns, (radius, nowhere))]))
            radius = radius.scatter_reduce(0, pairs.first - rows.start, pairs.upper, "amin")
            pairs = pairs.at(pairs.lower <= radius[pairs.first - rows.start])
            left = (pairs.lower < pairs.upper).nonzero()[:, 0]
            if len(left) <= DEAR * tiles.size(rows, columns) or not self.go_to_finest():
                break
        distance = pairs.upper.index_copy(0, left, self.chosen_distances(pairs.at(left)))
        return pairs.first, pairs.second, distance

    def _nearest_in_blocks(
        self, scores: Scores, rows: slice, columns: slice, radii: tuple[Tensor, Tensor]
    ) -> tuple[list[Pairs], Tensor]:
        """Those of the tile's crowded blocks, see `take_crowded`, and the radii of its rows with what these say."""
        found, (radius, nowhere) = [], radii
        for i, j in self.take_crowded(scores, rows, columns, radii):
            local, inside = self.local.scores(i, j), tiles.part_of(i, rows)
            best = tiles.best(local.values, 1, 1)
            radius[inside] = self._tightened(radius[inside, None], best, local, trust=1.0)[:, 0]
            found.append(self._within(local, i, j, (radius[inside], nowhere[tiles.part_of(j, columns)])))
        return found, radius

    def decided(self, rows: slice, columns: slice, around_x: Tensor, around_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The tile's part of `close_pairs`."""
        around_x, around_y = around_x[:, self.x.order[rows]], around_y[:, self.y.order[columns]]
        while True:
            scores = self.product.scores(rows, columns)
            pairs = self._inside(scores, rows, columns, (around_x, around_y))
            radii = torch.cat([around_x[:, pairs.first - rows.start], around_y[:, pairs.second - columns.start]])
            left = undecided(pairs, radii)
            if len(left) > CROWDED * tiles.size(rows, columns) and self.go_on():
                del scores, pairs, radii, left  # what takes their place needs the memory
                continue
            again = self.measure(pairs.at(left))
            distance = pairs.upper.index_copy(0, left, again.upper)
            left = left[undecided(again, radii[:, left])]
            if len(left) <= DEAR * tiles.size(rows, columns) or not self.go_to_finest():
                break
        distance[left] = self.chosen_distances(pairs.at(left))
        return self.x.order[pairs.first], self.y.order[pairs.second], distance

    def _inside(self, scores: Scores, rows: slice, columns: slice, balls: tuple[Tensor, Tensor]) -> Pairs:
        """The tile's pairs that may lie within one of the radii, R×n and R'×m; of crowded blocks by `local`."""
        furthest = balls[0].amax(dim=0), balls[1].amax(dim=0)
        found = []
        for i, j in self.take_crowded(scores, rows, columns, furthest, balls):
            inside = furthest[0][tiles.part_of(i, rows)], furthest[1][tiles.part_of(j, columns)]
            found.append(self._within(self.local.scores(i, j), i, j, inside))
        return join([*found, self._within(scores, rows, columns, furthest)])
